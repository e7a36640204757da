"""Rules for TrainingMethods: each one as CEL for the API server and as a predicate in Python, so that both judge alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_api import cel
from finetune_api.contract.custom import VARIABLES
from finetune_api.models.training_method import Parameter
from finetune_api.parameters import INTEGER, NUMBER, problem_of_text
from finetune_api.problems import Problem
from finetune_api.rules.scheduling import RESERVED_PREFIXES, RESERVED_VARIABLES

Entry = Mapping[str, Any]

TAKEN = (
    *RESERVED_VARIABLES,
    *("NNODES", "NODE_RANK", "NPROC_PER_NODE", "OUTPUT_DIR", "HF_HOME", "HF_TOKEN_PATH", "OMP_NUM_THREADS"),
)
"""Variables the operator sets in every pod of a TrainingMethod."""
TAKEN_PREFIXES = (*RESERVED_PREFIXES, "AWS_", "PET_")


class EntryRule(NamedTuple):
    """A rule on one entry of a list; ``self`` is the entry."""

    id: str
    requirement: str
    message: str
    cel: str
    holds: Callable[[Entry], bool]


def _is_free(name: str) -> bool:
    return name not in TAKEN and not name.startswith(TAKEN_PREFIXES)


_FREE = cel.all_of(f"!(self.name in {cel.literal(TAKEN)})", *(f"!self.name.startsWith('{prefix}')" for prefix in TAKEN_PREFIXES))
_TAKEN = (
    f"is set by the operator, as are {', '.join(f'{prefix}*' for prefix in TAKEN_PREFIXES)} and {', '.join(TAKEN)}: choose another name"
)
_NUMERIC = "self.type in ['integer', 'number']"
_DEFAULT_READS = (
    "(self.type == 'string' || (self.type == 'boolean' && self.default in ['true', 'false'])"
    f" || (self.type == 'integer' && self.default.matches('{INTEGER}')) || (self.type == 'number' && self.default.matches('{NUMBER}')))"
)
_IN_RANGE = "((!has(self.minimum) || double(self.default) >= self.minimum) && (!has(self.maximum) || double(self.default) <= self.maximum))"

NAME_RULES = (
    EntryRule("name-taken", "B-02", _TAKEN, _FREE, lambda entry: _is_free(entry["name"])),
    EntryRule(
        id="name-of-field",
        requirement="B-02",
        message=f"is made from a field of the job, as are {', '.join(VARIABLES)}: the program has it anyway, leave the entry out",
        cel=f"!(self.name in {cel.literal(tuple(VARIABLES))})",
        holds=lambda entry: entry["name"] not in VARIABLES,
    ),
)
"""On each entry of ``parameters`` and ``env``."""
PARAMETER_RULES = (
    *NAME_RULES,
    EntryRule(
        id="parameter-bounds",
        requirement="B-02",
        message="minimum and maximum are for types integer and number: leave them out, or change the type",
        cel=cel.any_of("!has(self.minimum) && !has(self.maximum)", _NUMERIC),
        holds=lambda entry: not ({"minimum", "maximum"} & entry.keys()) or entry["type"] in ("integer", "number"),
    ),
    EntryRule(
        id="parameter-range",
        requirement="B-02",
        message="minimum is above maximum",
        cel=cel.any_of("!has(self.minimum)", "!has(self.maximum)", "self.minimum <= self.maximum"),
        holds=lambda entry: not {"minimum", "maximum"} <= entry.keys() or entry["minimum"] <= entry["maximum"],
    ),
    EntryRule(
        id="parameter-choices",
        requirement="B-02",
        message="choices are for type string: leave them out, or change the type",
        cel=cel.any_of("!has(self.choices)", "self.type == 'string'"),
        holds=lambda entry: "choices" not in entry or entry["type"] == "string",
    ),
    EntryRule(
        id="parameter-required",
        requirement="B-02",
        message="a parameter that is required has no default: leave out one of the two",
        cel=cel.any_of("!has(self.required)", "!self.required", "!has(self.default)"),
        holds=lambda entry: not entry.get("required") or "default" not in entry,
    ),
    EntryRule(
        id="parameter-default",
        requirement="B-02",
        message="default does not fit: it is a text of the type (0.7, true), between minimum and maximum, and one of the choices",
        cel=cel.any_of(
            "!has(self.default)",
            cel.all_of(_DEFAULT_READS, f"(!({_NUMERIC}) || {_IN_RANGE})", "(!has(self.choices) || self.default in self.choices)"),
        ),
        holds=lambda entry: "default" not in entry or _default_fits(entry),
    ),
)
"""On each entry of ``parameters``."""

UNIQUE_NAMES = ("self.all(a, self.exists_one(b, b.name == a.name))", "no two entries have the same name")
"""On the lists ``parameters`` and ``env``."""


def _default_fits(entry: Entry) -> bool:
    """As a job's value would be judged, the choices whatever the type."""
    parameter = Parameter.model_validate(entry)
    within = parameter.choices is None or entry["default"] in parameter.choices
    return within and not problem_of_text(parameter, entry["default"])


def check_method(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that the spec of a TrainingMethod breaks. The spec must fit its schema."""
    return [*_check("parameters", spec.get("parameters") or (), PARAMETER_RULES), *_check("env", spec.get("env") or (), NAME_RULES)]


def _check(name: str, entries: Sequence[Entry], rules: Sequence[EntryRule]) -> Iterator[Problem]:
    entries = [{key: value for key, value in entry.items() if value is not None} for entry in entries]
    names = [entry["name"] for entry in entries]
    if len(set(names)) < len(names):
        yield Problem(f"spec.{name}", names, UNIQUE_NAMES[1])
    for index, entry in enumerate(entries):
        for rule in rules:
            if not rule.holds(entry):
                yield Problem(f"spec.{name}[{index}]", entry["name"], rule.message)
