"""Reward functions: the built-in ones and the user's own, from the spec. No torch: preflight checks them before a GPU is asked for."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from jsonschema import SchemaError
from jsonschema.validators import validator_for

from finetune_api.models.spec import Grpo, RewardFunction
from finetune_trainer.errors import TrainerError, configuration_error

Scores: TypeAlias = list[float | None]
"""One number per answer; None where a function does not apply."""
Function: TypeAlias = Callable[..., Scores] | Callable[..., Awaitable[Scores]]
DEFAULT_COLUMN: Final = "answer"
DEFAULT_FUNCTION: Final = "reward"
IS_JSON: Final = 0.5
"""Score of an answer that is JSON and does not fit the schema: a step on the way."""


class Reward(NamedTuple):
    """A reward function, its name in the metrics (``rewards/<name>/mean``) and its weight in the sum."""

    name: str
    weight: float
    function: Function


def build_rewards(settings: Grpo, sources: Mapping[str, Path]) -> list[Reward]:
    """Build the reward functions of a job; ``sources`` are the Python files by URI.

    Raises :class:`TrainerError` (ConfigurationError) naming the entry for a pattern, schema or Python file that cannot be used.
    """
    rewards: list[Reward] = []
    for index, entry in enumerate(settings.reward_functions or []):
        where = f"grpo.rewardFunctions[{index}]"
        wanted = (entry.function or DEFAULT_FUNCTION) if entry.type == "python" else entry.type
        taken = {reward.name for reward in rewards}
        name = next(name for name in (wanted, *(f"{wanted}-{number}" for number in range(2, 10))) if name not in taken)
        rewards.append(Reward(name, 1.0 if entry.weight is None else entry.weight, _build(entry, where, sources)))
    return rewards


def check_rewards(settings: Grpo, sources: Mapping[str, Path]) -> None:
    """Check what :func:`build_rewards` would, without running the user's code.

    Raises :class:`TrainerError` (ConfigurationError).
    """
    for index, entry in enumerate(settings.reward_functions or []):
        where = f"grpo.rewardFunctions[{index}]"
        if entry.type != "python":
            _build(entry, where, sources)
            continue
        file, wanted = _source_file(entry, where, sources), entry.function or DEFAULT_FUNCTION
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            raise configuration_error(f"{where}.source {entry.source}: no valid Python: {error}") from error
        # A name may also be imported or assigned; only a file that never says it is sure to lack it.
        named = {getattr(node, "name", None) or getattr(node, "id", None) for node in ast.walk(tree)}
        if wanted not in named:
            raise configuration_error(f"{where}.function: {entry.source} has no function {wanted}")


def answer_text(completion: object) -> str:
    """The text of a generated answer, plain or as messages."""
    if isinstance(completion, str):
        return completion
    assert isinstance(completion, Sequence), "TRL gives texts or lists of messages"
    content = completion[-1].get("content") if completion else ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _build(entry: RewardFunction, where: str, sources: Mapping[str, Path]) -> Function:
    match entry.type:
        case "exactMatch":
            pattern = _compiled(entry.pattern, where) if entry.pattern is not None else None
            return partial(exact_match, where=where, column=entry.column or DEFAULT_COLUMN, pattern=pattern)
        case "regex":
            return partial(matches, pattern=_compiled(entry.pattern or "", where), whole=bool(entry.full_match))
        case "length":
            return partial(within, low=entry.min_tokens or 0, high=entry.max_tokens)
        case "jsonSchema":
            return partial(fits_schema, validator=_validator(entry.json_schema or "{}", where))
        case "python":
            return _own_function(entry, where, _source_file(entry, where, sources))


def exact_match(
    completions: Sequence[object], *, where: str, column: str, pattern: re.Pattern[str] | None, **columns: Sequence[object]
) -> Scores:
    """1 where the answer, or what the last match of ``pattern`` captures of it, equals the column; blanks around both do not count."""
    if column not in columns:
        raise configuration_error(f"{where}.column: the rows have no column {column}; they have {', '.join(sorted(columns)) or 'none'}")
    found = [_extract(answer_text(completion), pattern) for completion in completions]
    return [
        float(text is not None and text.strip() == str(expected).strip()) for text, expected in zip(found, columns[column], strict=True)
    ]


def matches(completions: Sequence[object], *, pattern: re.Pattern[str], whole: bool, **_: object) -> Scores:
    """1 where the pattern matches the answer, all of it if ``whole``."""
    test = pattern.fullmatch if whole else pattern.search
    return [float(test(answer_text(completion)) is not None) for completion in completions]


def within(completion_ids: Sequence[Sequence[int]], *, low: int, high: int | None, **_: object) -> Scores:
    """1 from ``low`` to ``high`` tokens; below in proportion to ``low``, above falling to 0 at twice ``high``."""
    return [_length_score(len(ids), low, high) for ids in completion_ids]


def fits_schema(completions: Sequence[object], *, validator: Any, **_: object) -> Scores:
    """1 where the answer is JSON that fits the schema, :data:`IS_JSON` where it is other JSON, else 0."""
    scores: Scores = []
    for completion in completions:
        try:
            value = json.loads(answer_text(completion))
        except ValueError:
            scores.append(0.0)
            continue
        scores.append(1.0 if validator.is_valid(value) else IS_JSON)
    return scores


def _extract(text: str, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        return text
    found = list(pattern.finditer(text))
    if not found:
        return None
    return found[-1].group(1) if pattern.groups else found[-1].group()


def _length_score(tokens: int, low: int, high: int | None) -> float:
    if tokens < low:
        return tokens / low
    if high is not None and tokens > high:
        return max(0.0, 1 - (tokens - high) / high)
    return 1.0


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise configuration_error(f"{where}.pattern: no valid regular expression: {error}") from error


def _validator(schema: str, where: str) -> Any:
    try:
        document = json.loads(schema)
        kind = validator_for(document)
        kind.check_schema(document)
    except (ValueError, SchemaError) as error:
        reason = error.message if isinstance(error, SchemaError) else str(error)
        raise configuration_error(f"{where}.jsonSchema: no valid JSON schema: {reason}") from error
    return kind(document)


def _source_file(entry: RewardFunction, where: str, sources: Mapping[str, Path]) -> Path:
    if entry.source is None or entry.source not in sources:
        raise configuration_error(f"{where}.source: a Python file is needed, for example configmap://rewards/reward.py")
    return sources[entry.source]


def _own_function(entry: RewardFunction, where: str, file: Path) -> Function:
    """Import the user's file and take the function out of it; whatever it raises later names the entry."""
    wanted = entry.function or DEFAULT_FUNCTION
    # A loader of its own, since a key of a ConfigMap need not end in .py.
    loader = SourceFileLoader(f"finetune_reward_{file.stem.replace('.', '_')}", str(file))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None, "a loader always gives a spec"
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except Exception as error:  # whatever the user's code does
        raise configuration_error(f"{where}.source {entry.source}: {type(error).__name__}: {error}") from error
    function = getattr(module, wanted, None)
    if not callable(function):
        raise configuration_error(f"{where}.function: {entry.source} has no function {wanted}")
    return _guarded(function, f"{where}: {entry.source}, {wanted}")


def _guarded(function: Callable[..., Any], where: str) -> Function:
    def failed(error: Exception) -> TrainerError:
        return configuration_error(f"{where}(): {type(error).__name__}: {error}")

    if inspect.iscoroutinefunction(function):

        async def call_later(**values: Any) -> Scores:
            try:
                return _numbers(await function(**values), where)
            except TrainerError:
                raise
            except Exception as error:  # whatever the user's code does
                raise failed(error) from error

        return call_later

    def call(**values: Any) -> Scores:
        try:
            return _numbers(function(**values), where)
        except TrainerError:
            raise
        except Exception as error:  # likewise
            raise failed(error) from error

    return call


def _numbers(scores: Any, where: str) -> Scores:
    values = list(scores)
    wrong = next((value for value in values if value is not None and not isinstance(value, int | float)), None)
    if wrong is not None:
        raise configuration_error(f"{where}() returned {wrong!r}; one number or None per answer is expected")
    return values
