"""Rules stand as deep in the schema as what they read allows."""

from __future__ import annotations

import pytest

from finetune_api.placement import place

ABSENT_AB = "!has(self.a) || !has(self.a.b) || "


@pytest.mark.parametrize(
    ("expression", "field", "at", "moved"),
    [
        ("self.?training.?maxSteps.orValue(-1) != 0", "training.maxSteps", ("training",), "self.?maxSteps.orValue(-1) != 0"),
        (f"{ABSENT_AB}self.a.b.matches('^s3://')", "a.b", ("a", "b"), "self.matches('^s3://')"),
        (f"{ABSENT_AB}self.a.b.all(x, self.a.b.exists(y, x == y))", "a.b", ("a", "b"), "self.all(x, self.exists(y, x == y))"),
        (f"self.?a.?on.orValue(false) || {ABSENT_AB}self.a.b > 1", "a.b", ("a",), "self.?on.orValue(false) || !has(self.b) || self.b > 1"),
        ("(!has(self.a) || self.a.b == 1) && (!has(self.a) || self.a.c == 1)", "a", ("a",), "(self.b == 1) && (self.c == 1)"),
    ],
)
def test_an_expression_moves_down_to_the_field_it_is_about(expression: str, field: str, at: tuple[str, ...], moved: str) -> None:
    assert place(expression, field) == (at, moved)


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("self.?a.?x.orValue(1) < self.?b.?y.orValue(2)", "a.x"),
        ("!has(self.methodRef) || !(self.?output.?merge.orValue(false))", "output.merge"),
        ("!self.?dpo.hasValue() || self.?method.orValue('sft') == 'dpo'", "dpo"),
        ("has(self.a) && self.a.b == 1", "a.b"),
        ("!(self.?method.hasValue() && has(self.methodRef))", "method"),
    ],
)
def test_one_that_reads_elsewhere_or_asks_for_the_field_stays_on_the_spec(expression: str, field: str) -> None:
    assert place(expression, field) == ((), expression)
