"""Small pieces of the Common Expression Language as Kubernetes (1.32 or newer) has it; ``self`` is the spec.

Texts and lists are read behind ``has()``: there the API server knows their bounds and can tell what a rule costs. Behind an optional
(``self.?a``) it does not, which is free for numbers, flags and short choices only.
"""

from __future__ import annotations

from finetune_api.defaults import BASE, SCHEMA


def literal(constant: object) -> str:
    """A literal: true, 'text', 1.5, ['a', 'b']."""
    match constant:
        case bool():
            return "true" if constant else "false"
        case str():
            return f"'{constant}'"
        case list() | tuple():
            return f"[{', '.join(literal(item) for item in constant)}]"
        case _:
            return repr(constant)


def value(path: str, default: object = None) -> str:
    """The number, flag or choice at a dotted path, or its default (of the table unless given)."""
    if default is None:
        default = BASE[path] if path in BASE else SCHEMA[path]
    return f"self.?{path.replace('.', '.?')}.orValue({literal(default)})"


def method(own: str) -> str:
    """The built-in method, or ``own`` for a job with a methodRef."""
    return f"(has(self.methodRef) ? {literal(own)} : {value('method')})"


def has(path: str) -> str:
    """Whether the field at a path was written."""
    return f"self.?{path.replace('.', '.?')}.hasValue()"


def unless(path: str, condition: str) -> str:
    """``condition`` on the text or list ``self.<path>``, true where that is absent."""
    steps = path.split(".")
    absent = [f"!has(self.{'.'.join(steps[: depth + 1])})" for depth in range(len(steps))]
    return any_of(*absent, condition)


def any_of(*conditions: str) -> str:
    """At least one holds."""
    return " || ".join(f"({condition})" if " && " in condition else condition for condition in conditions)


def all_of(*conditions: str) -> str:
    """All hold."""
    return " && ".join(f"({condition})" if " || " in condition else condition for condition in conditions)


def negate(condition: str) -> str:
    """Does not hold."""
    return f"!({condition})"
