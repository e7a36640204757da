"""The termination message fits into the kubelet's 4096 bytes and stays valid JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.termination import MAX_LOG_BYTES, MAX_MESSAGE_BYTES, TerminationMessage
from finetune_trainer.supervisor.termination import fit, head, tail, write_termination_message

TAILS = [("a\nb\nc", 3, "c"), ("abcdef", 3, "def"), ("a\nb", 9, "a\nb"), ("abc", 0, ""), ("aä", 1, "")]


def make_message(**fields: object) -> TerminationMessage:
    return TerminationMessage.model_validate({"contract_version": 1, "run": 1, "pod": 0, "exit_code": 42, **fields})


def test_a_small_message_is_left_alone() -> None:
    message = make_message(message="short", log_lines="a\nb", warnings=["w"])
    assert fit(message) == message


@given(
    st.text(max_size=6000),
    st.text(max_size=9000),
    st.lists(st.text(max_size=500), max_size=12),
    st.fixed_dictionaries(
        {
            "metrics": st.dictionaries(st.text(max_size=40), st.floats(allow_nan=False, allow_infinity=False), max_size=60),
            "result": st.dictionaries(st.text(max_size=40), st.text(max_size=300), max_size=20),
        }
    ),
)
def test_whatever_there_is_to_say_fits(text: str, lines: str, warnings: list[str], found: dict[str, object]) -> None:
    fields = {"message": text, "log_lines": lines, "warnings": warnings, **found}
    fitted = fit(make_message(failure_class=FailureClass.DATA, step=7, failed_rank=3, **fields))
    data = fitted.to_json().encode()
    assert len(data) <= MAX_MESSAGE_BYTES
    read = TerminationMessage.model_validate_json(data)
    assert (read.exit_code, read.failure_class, read.step, read.failed_rank) == (42, FailureClass.DATA, 7, 3)


def test_the_end_of_the_log_counts() -> None:
    lines = "\n".join(f"line {number}" for number in range(2000))
    fitted = fit(make_message(log_lines=lines))
    assert fitted.log_lines.endswith("line 1999")
    assert fitted.log_lines.startswith("line ")
    assert len(fitted.log_lines.encode()) <= MAX_LOG_BYTES


@pytest.mark.parametrize(("text", "limit", "expected"), [("abc", 3, "abc"), ("abcdef", 5, "ab…"), ("äöü", 5, "ä…")])
def test_head(text: str, limit: int, expected: str) -> None:
    assert head(text, limit) == expected


@pytest.mark.parametrize(("text", "limit", "expected"), TAILS)
def test_tail(text: str, limit: int, expected: str) -> None:
    assert tail(text, limit) == expected


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_termination_message(tmp_path / "file/below", make_message())
    write_termination_message(tmp_path / "message", make_message(message="kept"))
    assert TerminationMessage.model_validate_json((tmp_path / "message").read_bytes()).message == "kept"
