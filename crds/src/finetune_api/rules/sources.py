"""Rules for what is read: addresses of models and data, credentials, columns, evaluation data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from finetune_api import cel
from finetune_api.constants import MAX_JOB_NAME
from finetune_api.problems import Problem
from finetune_api.resolve import OF_DATASET
from finetune_api.rules.rule import Rule
from finetune_api.written import Written

_NAME = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
ADDRESS_FORMS: Mapping[str, tuple[str, str]] = {
    "hf": ("hf://[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?(@[A-Za-z0-9_./-]+)?", "hf://org/name@revision"),
    "s3": ("s3://[A-Za-z0-9_.-]+/.+", "s3://bucket/key"),
    "gs": ("gs://[A-Za-z0-9_.-]+/.+", "gs://bucket/key"),
    "pvc": (f"pvc://{_NAME}(/.*)?", "pvc://claim/path"),
    "https": ("https://[^/]+/.+", "https://host/path"),
    "configmap": (f"configmap://{_NAME}/[A-Za-z0-9_.-]+", "configmap://name/key"),
    "ref": ("ref:.+", "ref:name"),
}
"""Scheme -> pattern of a complete address (RE2 and Python alike), and how it is written."""
PARENT_SEGMENT = "/[.][.](/|$)"
_BUCKET = "^(s3|gs)://"
MODEL_SCHEMES = ("hf", "s3", "gs", "pvc", "https")
DATA_SCHEMES = (*MODEL_SCHEMES, "configmap")


def address_rule(path: str, schemes: tuple[str, ...]) -> Rule:
    """The rule that the address at ``path``, where it is written, is complete."""
    pattern = f"^({'|'.join(ADDRESS_FORMS[scheme][0] for scheme in schemes)})$"
    complete = cel.all_of(f"self.{path}.matches('{pattern}')", f"!self.{path}.matches('{PARENT_SEGMENT}')")

    def holds(spec: Written) -> bool:
        address = spec[path]
        return address is None or (re.search(pattern, address) is not None and re.search(PARENT_SEGMENT, address) is None)

    return Rule(
        id=f"address-{path.replace('.', '-').lower()}",
        requirement="AC-36 D-09",
        path=path,
        message=f"is no complete address; write one of {', '.join(ADDRESS_FORMS[scheme][1] for scheme in schemes)}, without ..",
        cel=cel.unless(path, complete),
        holds=holds,
    )


def bucket_rule(field: str, message: str, block: str = "dataset.") -> Rule:
    """The rule that data in a bucket comes with a field of ``block``."""
    written, addresses = f"{block}{field}", (f"{block}uri", f"{block}evalUri")
    elsewhere = [cel.unless(path, f"!self.{path}.matches('{_BUCKET}')") for path in addresses]
    return Rule(
        id=f"bucket-{field.lower()}",
        requirement="AC-35 D-14 D-15",
        path=written,
        message=message,
        cel=cel.any_of(cel.has(written), cel.all_of(*elsewhere)),
        holds=lambda spec: spec.has(written) or not any(re.search(_BUCKET, spec[path] or "") for path in addresses),
        open=(written,) if block else (),  # a Dataset has no preset
    )


_LIMITS = ("promptMaxLength", "contentMaxLength")


def limit_problems(written: Written, total: int) -> list[Problem]:
    """Limits that are written and exceed the longest sequence, which nobody wrote: ``total`` tokens, 0 = the model's context."""
    if written.has("training.maxSeqLength") or total == 0:
        return []
    return [
        Problem(f"spec.{path}", written[path], f"must not exceed training.maxSeqLength, which is {total} here; lower it or set that")
        for path in (f"dataset.{field}" for field in _LIMITS)
        if written.has(path) and written[path] > total
    ]


def _fits_rule(field: str) -> Rule:
    limit, total = f"dataset.{field}", "training.maxSeqLength"
    return Rule(
        id=f"{field.lower()}-fits",
        requirement="X10",
        path=limit,
        message="must not exceed training.maxSeqLength; lower it or raise training.maxSeqLength",
        cel=cel.any_of(f"!{cel.has(total)}", f"{cel.value(total)} == 0", f"{cel.value(limit, 0)} <= {cel.value(total)}"),
        holds=lambda spec: not spec.has(total) or spec[total] == 0 or not spec.has(limit) or spec[limit] <= spec[total],
    )


def columns_rule(block: str = "dataset.") -> Rule:
    """The rule that columns are named for formats that have names for them."""
    columns, kind = (f"{block}promptColumn", f"{block}outputColumn"), f"{block}format"
    return Rule(
        id="columns-format",
        requirement="E-05",
        path=kind,
        message="promptColumn and outputColumn belong to formats prompt-completion and preference; write one, or leave the columns out",
        cel=cel.any_of(
            cel.all_of(*(f"!{cel.has(column)}" for column in columns)),
            f"!({cel.value(kind, 'auto')} in {cel.literal(_OTHER_FORMATS)})",
        ),
        holds=lambda spec: not any(spec.has(column) for column in columns) or spec[kind] not in _OTHER_FORMATS,
    )


_OTHER_FORMATS = ("messages", "sharegpt", "alpaca", "openai-dpo", "text", "vlm-zip")
"""Formats that know their columns."""
_TEMPLATE = "^([^{}]|[{][{]|[}][}]|[{]prompt[}]|[{]system_prompt[}])*$"
"""A text in which every single brace belongs to a placeholder."""


def _additional_rule(
    name: str,
    requirement: str,
    message: str,
    condition: str,
    holds: Callable[[Mapping[str, Any], Written], bool],
    open_fields: tuple[str, ...] = (),
) -> Rule:
    """A rule on each of ``dataset.additional``; ``condition`` is on ``part``."""
    path = "dataset.additional"
    return Rule(
        id=f"additional-{name}",
        requirement=requirement,
        path=path,
        message=message,
        cel=cel.unless(path, f"self.{path}.all(part, {condition})"),
        holds=lambda spec: all(holds(part, spec) for part in spec[path] or ()),
        open=open_fields,
    )


def _data_pattern() -> str:
    return f"^({'|'.join(ADDRESS_FORMS[scheme][0] for scheme in DATA_SCHEMES)})$"


ADDITIONAL_RULES = (
    _additional_rule(
        "address",
        "AC-36 D-17",
        f"each uri must be a complete address: {', '.join(ADDRESS_FORMS[scheme][1] for scheme in DATA_SCHEMES)}, without ..",
        f"part.uri.matches('{_data_pattern()}') && !part.uri.matches('{PARENT_SEGMENT}')",
        lambda part, _: bool(re.search(_data_pattern(), part["uri"])) and not re.search(PARENT_SEGMENT, part["uri"]),
    ),
    _additional_rule(
        "bucket",
        "AC-35 D-14 D-15",
        "s3:// and gs:// sources need secretRef and region, their own or those of the dataset",
        f"!part.uri.matches('{_BUCKET}') || ((has(part.secretRef) || {cel.has('dataset.secretRef')}) && "
        f"(has(part.region) || {cel.has('dataset.region')}))",
        lambda part, spec: (
            not re.search(_BUCKET, part["uri"]) or all(name in part or spec.has(f"dataset.{name}") for name in ("secretRef", "region"))
        ),
        ("dataset.secretRef", "dataset.region"),
    ),
    _additional_rule(
        "columns",
        "E-05",
        "promptColumn and outputColumn belong to formats prompt-completion and preference; write one of them, or leave the columns out",
        f"!(has(part.promptColumn) || has(part.outputColumn)) || !has(part.format) || !(part.format in {cel.literal(_OTHER_FORMATS)})",
        lambda part, _: not ({"promptColumn", "outputColumn"} & part.keys() and part.get("format") in _OTHER_FORMATS),
    ),
)

TEMPLATE_RULES = (
    Rule(
        id="template-placeholders",
        requirement="E-10 AC-39",
        path="dataset.promptTemplate",
        message="must contain {prompt}, may contain {system_prompt}, and no other placeholder; double the braces that are meant: {{ and }}",
        cel=cel.unless(
            "dataset.promptTemplate",
            f"self.dataset.promptTemplate.matches('{_TEMPLATE}') && self.dataset.promptTemplate.contains('{{prompt}}')",
        ),
        holds=lambda spec: (
            not spec.has("dataset.promptTemplate")
            or (re.search(_TEMPLATE, spec["dataset.promptTemplate"]) is not None and "{prompt}" in spec["dataset.promptTemplate"])
        ),
    ),
    Rule(
        id="template-once",
        requirement="E-10",
        path="dataset.promptTemplate",
        message="takes the place of the chat template; write promptTemplate or chatTemplate, not both",
        cel=cel.any_of(f"!{cel.has('dataset.promptTemplate')}", f"!{cel.has('dataset.chatTemplate')}"),
        holds=lambda spec: not (spec.has("dataset.promptTemplate") and spec.has("dataset.chatTemplate")),
    ),
    Rule(
        id="text-has-no-prompt",
        requirement="E-10 E-11",
        path="dataset.format",
        message="text has no prompt: leave out systemPrompt, promptTemplate and assistantOnlyLoss, or write another format",
        cel=cel.any_of(
            f"{cel.value('dataset.format')} != 'text'",
            cel.all_of(
                f"!{cel.has('dataset.systemPrompt')}", f"!{cel.has('dataset.promptTemplate')}", f"!{cel.value('dataset.assistantOnlyLoss')}"
            ),
        ),
        holds=lambda spec: (
            spec["dataset.format"] != "text"
            or not (spec.has("dataset.systemPrompt") or spec.has("dataset.promptTemplate") or spec["dataset.assistantOnlyLoss"])
        ),
    ),
    Rule(
        id="template-without-turns",
        requirement="E-10",
        path="dataset.assistantOnlyLoss",
        message="is for conversations in a chat template; with promptTemplate the answer alone is learnt anyway",
        cel=cel.any_of(f"!{cel.has('dataset.promptTemplate')}", f"!{cel.value('dataset.assistantOnlyLoss')}"),
        holds=lambda spec: not (spec.has("dataset.promptTemplate") and spec["dataset.assistantOnlyLoss"]),
    ),
)

_COMMIT = "@[0-9a-f]{40}$"


def commit_rule(path: str, trusted: str = "model.trustRemoteCode") -> Rule:
    """Whoever owns a repository can move its branches and tags; code that is run must be the code that was looked at."""
    fixed = cel.unless(path, cel.any_of(f"!self.{path}.startsWith('hf://')", f"self.{path}.matches('{_COMMIT}')"))
    return Rule(
        id=f"remote-code-{path.replace('.', '-').lower()}",
        requirement="C-05",
        path=path,
        message=f"must name a commit where {trusted} is true: hf://org/name@ and its 40 hexadecimal digits; branches and tags can be moved",
        cel=cel.any_of(f"!{cel.value(trusted, default=False)}", fixed),
        holds=lambda spec: not spec[trusted] or not str(spec[path] or "").startswith("hf://") or re.search(_COMMIT, spec[path]) is not None,
    )


def gguf_rule(path: str) -> Rule:
    """The rule that the address of a model is not that of a GGUF file."""
    return Rule(
        id=f"{path.replace('.', '-').removesuffix('-uri')}-gguf",
        requirement="AC-04 C-11",
        path=path,
        message="GGUF files cannot be trained; name the directory of the original model (config.json and safetensors)",
        cel=cel.unless(path, f"!self.{path}.lowerAscii().endsWith('.gguf')"),
        holds=lambda spec: not str(spec[path]).lower().endswith(".gguf"),
    )


_REFERENCE = f"^ref:{_NAME}$"
_MAX_REFERENCE = len("ref:") + 253
REFERENCE_RULE = Rule(
    id="model-reference",
    requirement="C-02",
    path="model.uri",
    message="ref: is followed by a BaseModel's name: at most 253 lower case letters, digits, - and .; kubectl get basemodels lists them",
    cel=cel.unless(
        "model.uri",
        f"!self.model.uri.startsWith('ref:') || (self.model.uri.matches('{_REFERENCE}') && self.model.uri.size() <= {_MAX_REFERENCE})",
    ),
    holds=lambda spec: (
        not str(spec["model.uri"]).startswith("ref:")
        or (re.search(_REFERENCE, spec["model.uri"]) is not None and len(spec["model.uri"]) <= _MAX_REFERENCE)
    ),
)

_DATASET = f"^ref:[a-z]([-a-z0-9]{{0,{MAX_JOB_NAME - 2}}}[a-z0-9])?$"
DATASET_REFERENCE_RULE = Rule(
    id="dataset-reference",
    requirement="D-04 D-12",
    path="dataset.uri",
    message=f"ref: is followed by a Dataset's name: at most {MAX_JOB_NAME} lower case letters, digits and -; see kubectl get datasets",
    cel=cel.unless("dataset.uri", f"!self.dataset.uri.startsWith('ref:') || self.dataset.uri.matches('{_DATASET}')"),
    holds=lambda spec: not str(spec["dataset.uri"]).startswith("ref:") or re.search(_DATASET, spec["dataset.uri"]) is not None,
)
DATASET_SAYS_RULE = Rule(
    id="dataset-says",
    requirement="D-04",
    path="dataset.uri",
    message=f"names a Dataset, which says {', '.join(OF_DATASET)}: leave these out of dataset, or write the address in place of ref:",
    cel=cel.unless(
        "dataset.uri",
        cel.any_of("!self.dataset.uri.startsWith('ref:')", cel.all_of(*(f"!{cel.has(f'dataset.{name}')}" for name in OF_DATASET))),
    ),
    holds=lambda spec: not str(spec["dataset.uri"]).startswith("ref:") or not any(spec.has(f"dataset.{name}") for name in OF_DATASET),
)

_EVAL_RATIO = "dataset.evalRatio"
_OFF_STEP = f"self.{_EVAL_RATIO} * 100.0 - double(int(self.{_EVAL_RATIO} * 100.0 + 0.5))"

SOURCE_RULES = (
    address_rule("model.uri", (*MODEL_SCHEMES, "ref")),
    REFERENCE_RULE,
    address_rule("model.tokenizer.uri", MODEL_SCHEMES),
    commit_rule("model.uri"),
    commit_rule("model.tokenizer.uri"),
    gguf_rule("model.uri"),
    address_rule("dataset.uri", (*DATA_SCHEMES, "ref")),
    DATASET_REFERENCE_RULE,
    DATASET_SAYS_RULE,
    address_rule("dataset.evalUri", DATA_SCHEMES),
    bucket_rule("secretRef", "is required for s3:// and gs:// data; name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    bucket_rule("region", "is required for s3:// and gs:// data; write the bucket's region, for example us-east-1"),
    Rule(
        id="eval-data-once",
        requirement="X29 E-09",
        path="dataset.evalRatio",
        message="must be 0 together with dataset.evalUri; evaluation data comes from one of the two",
        cel=cel.any_of(f"!{cel.has('dataset.evalUri')}", f"{cel.value('dataset.evalRatio')} == 0.0"),
        holds=lambda spec: not spec.has("dataset.evalUri") or spec["dataset.evalRatio"] == 0,
    ),
    Rule(
        id="eval-ratio-step",
        requirement="E-19",
        path=_EVAL_RATIO,
        message="must be a multiple of 0.01, for example 0.05 or 0.1",
        # Binary fractions hold few such numbers: a millionth of a step is none.
        cel=cel.unless(_EVAL_RATIO, f"{_OFF_STEP} < 0.000001 && {_OFF_STEP} > -0.000001"),
        holds=lambda spec: abs(spec[_EVAL_RATIO] * 100 - int(spec[_EVAL_RATIO] * 100 + 0.5)) < 1e-6,
        before_run=True,
    ),
    columns_rule(),
    Rule(
        id="split-sum",
        requirement="X28 E-18",
        path="dataset.trainRatio",
        message="and dataset.evalRatio are shares of the same rows: together they must not exceed 1",
        # A thousandth more, for sums such as 0.7 + 0.1 + 0.2 that binary fractions cannot hold.
        cel=f"{cel.value('dataset.trainRatio', 0.0)} + {cel.value('dataset.evalRatio')} <= 1.001",
        holds=lambda spec: (spec["dataset.trainRatio"] or 0.0) + spec["dataset.evalRatio"] <= 1.001,
    ),
    *ADDITIONAL_RULES,
    *TEMPLATE_RULES,
    *(_fits_rule(field) for field in _LIMITS),
    address_rule("adapter.peftConfig", ("s3", "gs", "pvc", "https", "configmap")),
    address_rule("adapter.attach.uri", MODEL_SCHEMES),
)
