"""Rules for what a finished job leaves."""

from __future__ import annotations

from finetune_api import cel
from finetune_api.rules.rule import Rule

_PUSHES = "output.push.enabled"
_QUANT = "output.export.gguf.quant"
_TOKENS = ("output.push.secretRef.name", "secrets.huggingface.secretRef.name")

OUTPUT_RULES = (
    Rule(
        id="push-repository",
        requirement="AC-68 W-03",
        path="output.push.repoId",
        message="is needed with output.push.enabled: write org/name",
        cel=cel.any_of(cel.negate(cel.value(_PUSHES)), cel.has("output.push.repoId")),
        holds=lambda spec: not spec[_PUSHES] or spec.has("output.push.repoId"),
        open=("output.push.repoId",),
    ),
    Rule(
        id="push-token",
        requirement="AC-68 W-03 X-01",
        path=_PUSHES,
        message="needs a Secret whose key HF_TOKEN may write: set output.push.secretRef or secrets.huggingface.secretRef",
        cel=cel.any_of(cel.negate(cel.value(_PUSHES)), *(cel.has(path) for path in _TOKENS)),
        holds=lambda spec: not spec[_PUSHES] or any(spec.has(path) for path in _TOKENS),
        open=_TOKENS,
    ),
    Rule(
        id="gguf-formats-once",
        requirement="W-04",
        path=_QUANT,
        message="names a format twice; write each once",
        cel=cel.unless(_QUANT, f"self.{_QUANT}.all(name, self.{_QUANT}.exists_one(other, other == name))"),
        holds=lambda spec: len(set(spec[_QUANT])) == len(spec[_QUANT]),
    ),
)
