"""Reward functions of grpo (H-03, X53): what they score, what they refuse, and how those of users are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.models.spec import Grpo
from finetune_api.resolve import resolve
from finetune_trainer.errors import TrainerError
from finetune_trainer.rewards import build_rewards, check_rewards

URI = "configmap://rewards/reward.py"


def settings(*functions: dict[str, Any], **grpo: Any) -> Grpo:
    """The block of a job with these functions."""
    job = {"model": {"uri": "hf://a/b"}, "dataset": {"uri": "hf://a/c"}, "method": "grpo"}
    block = resolve({**job, "grpo": {"rewardFunctions": list(functions), **grpo}}).spec.grpo
    assert block is not None
    return block


def score(function: dict[str, Any], completions: list[Any], sources: dict[str, Path] | None = None, **columns: list[Any]) -> Any:
    """Scores of some answers."""
    (reward,) = build_rewards(settings(function), sources or {})
    ids = columns.pop("completion_ids", [[1] for _ in completions])
    return reward.function(prompts=["p" for _ in completions], completions=completions, completion_ids=ids, **columns)


@pytest.mark.parametrize(
    ("function", "completions", "columns", "expected"),
    [
        ({"type": "exactMatch"}, [" po\n", "pod"], {"answer": ["po", "po"]}, [1, 0]),
        ({"type": "exactMatch", "column": "n"}, [[{"role": "assistant", "content": "4"}]], {"n": [4]}, [1]),
        ({"type": "exactMatch", "pattern": r"#### (\S+)"}, ["#### 1 then #### 2", "2"], {"answer": ["2", "2"]}, [1, 0]),
        ({"type": "regex", "pattern": "a.c"}, ["xa\ncx", "abd"], {}, [1, 0]),
        ({"type": "regex", "pattern": "a+", "fullMatch": True}, ["aaa", "aab"], {}, [1, 0]),
        (
            {"type": "length", "minTokens": 4, "maxTokens": 8},
            [""] * 4,
            {"completion_ids": [[0] * n for n in (2, 6, 12, 20)]},
            [0.5, 1, 0.5, 0],
        ),
        ({"type": "jsonSchema", "jsonSchema": '{"type": "object"}'}, ["{}", "[]", "{"], {}, [1, 0.5, 0]),
    ],
)
def test_built_in(function: dict[str, Any], completions: list[Any], columns: dict[str, Any], expected: list[float]) -> None:
    """Each built-in function on answers it likes and dislikes."""
    assert score(function, completions, **columns) == expected


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ({"type": "regex", "pattern": "("}, "pattern: no valid regular expression"),
        ({"type": "jsonSchema", "jsonSchema": "{}}"}, "jsonSchema: no valid JSON schema"),
        ({"type": "jsonSchema", "jsonSchema": '{"type": "thing"}'}, "jsonSchema: no valid JSON schema"),
        ({"type": "python", "source": "configmap://rewards/other.py"}, "source: a Python file is needed"),
        ({"type": "python", "source": URI, "function": "absent"}, "has no function absent"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, function: dict[str, Any], message: str) -> None:
    """Both before a GPU is asked for and when training starts."""
    file = tmp_path / "reward.py"
    file.write_text("def reward(completions, **_):\n    return [1 for _ in completions]\n")
    for examine in (check_rewards, build_rewards):
        with pytest.raises(TrainerError) as raised:
            examine(settings(function), {URI: file})
        assert "grpo.rewardFunctions[0]" in raised.value.message
        assert message in raised.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [("raise KeyError('x')", "KeyError"), ("return ['good']", "returned 'good'"), ("return [1.5, None]", "")],
)
def test_functions_of_users(tmp_path: Path, body: str, message: str) -> None:
    """They may leave an answer out; what they raise names the entry and the file."""
    file = tmp_path / "reward.py"
    file.write_text(f"def reward(completions, **_):\n    {body}\n")
    function = {"type": "python", "source": URI}
    if not message:
        assert score(function, ["a", "b"], {URI: file}) == [1.5, None]
        return
    with pytest.raises(TrainerError) as raised:
        score(function, ["a"], {URI: file})
    assert message in raised.value.message
    assert URI in raised.value.message


def test_names_are_told_apart() -> None:
    """Two functions of one type have numbers of their own in the metrics."""
    rewards = build_rewards(settings({"type": "length", "maxTokens": 4}, {"type": "length", "minTokens": 2, "weight": 0.5}), {})
    assert [(reward.name, reward.weight) for reward in rewards] == [("length", 1.0), ("length-2", 0.5)]
