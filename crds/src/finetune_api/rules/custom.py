"""Rules for jobs of a TrainingMethod: what belongs to built-in methods alone."""

from __future__ import annotations

from finetune_api import cel
from finetune_api.rules.rule import Rule

_REF = "methodRef"


def _belongs_to_builtin(name: str, path: str, message: str, *, flag: bool = False) -> Rule:
    """A field that our own trainer reads; ``flag``: one that may be false."""
    written = cel.value(path) if flag else cel.has(path)
    return Rule(
        id=f"method-ref-{name}",
        requirement="B-02",
        path=path,
        message=message,
        cel=cel.any_of(f"!has(self.{_REF})", cel.negate(written)),
        holds=lambda spec: not spec.has(_REF) or not (spec[path] if flag else spec.has(path)),
    )


_OUTPUTS = "is made of what the built-in methods leave; a TrainingMethod's program writes its own result: leave it out"

CUSTOM_RULES = (
    Rule(
        id="method-ref-alone",
        requirement="B-01",
        path=_REF,
        message="takes the place of a built-in method: leave out method, or methodRef",
        cel=cel.negate(cel.all_of(cel.has("method"), f"has(self.{_REF})")),
        holds=lambda spec: not (spec.has("method") and spec.has(_REF)),
    ),
    _belongs_to_builtin("image", "resources.image", "is named by the TrainingMethod, which its administrators answer for: leave it out"),
    _belongs_to_builtin(
        "arguments", "training.extraArgs", "are arguments of TRL; parameters of a TrainingMethod go to methodRef.parameters"
    ),
    _belongs_to_builtin("merge", "output.merge", _OUTPUTS, flag=True),
    _belongs_to_builtin("gguf", "output.export.gguf.enabled", _OUTPUTS, flag=True),
    _belongs_to_builtin("push", "output.push.enabled", _OUTPUTS, flag=True),
)
