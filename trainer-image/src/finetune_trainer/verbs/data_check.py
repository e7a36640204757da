"""The part of preflight that looks at the data: readable, how much, how long in tokens."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune_api.contract.failures import EXIT_DONE
from finetune_api.contract.preflight import DatasetFacts
from finetune_api.contract.run_config import RunConfig
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.check import Part, check_rows
from finetune_trainer.prepare.images import ImageCheck, Images
from finetune_trainer.protocol import ENV_MEASURE_PLAN, MeasuredTokens, MeasurePlan
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.hub_stream import write_excerpt
from finetune_trainer.sources.model_directory import CONFIG
from finetune_trainer.sources.remote_model import read_remote
from finetune_trainer.sources.resolve import Split, fetch_tokenizer
from finetune_trainer.sources.sample import Sample, sample_data
from finetune_trainer.supervisor.environment import PodEnvironment, Secrets, data_stream, dataset_sources, model_source, tokenizer_source
from finetune_trainer.verbs.findings import Findings
from finetune_trainer.vision import has_vision

logger = logging.getLogger(__name__)
MEASURE_SECONDS = 300.0


def check_data(config: RunConfig, secrets: Secrets, context: SourceContext, environment: PodEnvironment, found: Findings) -> dict[str, str]:
    """Rows must be readable as the job says; large data is judged by its beginning and end. Returns warnings; facts go to ``found``.

    Raises :class:`TrainerError` naming file, line, field and what was expected.
    """
    spec, directory = config.spec, environment.work_dir / "sample"
    parts = []
    for number, (source, split) in enumerate(dataset_sources(spec, secrets)):
        sample = _sample(config, secrets, context, directory / str(number)) or sample_data(source, context, split, directory / str(number))
        parts.append(Part(spec.dataset.parts[number], sample.files, sample.is_whole))
    sees = _sees(config, secrets, context)
    images = ImageCheck(offline=config.offline) if sees is not False else None
    checked = check_rows(parts, spec, images=images)
    facts = checked.facts
    if spec.dataset.eval_uri is not None:
        facts = facts.model_copy(update={"eval_examples": _evaluation_rows(config, secrets, context, directory / "eval", images)})
    measured = _measured(config, secrets, context, environment, MeasureTask(parts, has_vision=bool(sees)))
    found.columns, found.dataset = checked.columns[:10], with_tokens(facts, measured)
    return checked.warnings | (measured.warnings if measured is not None else {})


def _sample(config: RunConfig, secrets: Secrets, context: SourceContext, directory: Path) -> Sample | None:
    """The first rows of a stream; None for data that is fetched."""
    stream = data_stream(config.spec, secrets, context)
    return Sample([write_excerpt(stream, directory)], is_whole=False) if stream is not None else None


def _sees(config: RunConfig, secrets: Secrets, context: SourceContext) -> bool | None:
    """Whether the model has a vision part; None where it cannot be looked at, which the check of the model says better."""
    try:
        document = read_remote(model_source(config.spec, secrets), context, CONFIG)
        return has_vision(json.loads(document)) if document is not None else None
    except (TrainerError, ValueError) as error:
        logger.warning("whether the model sees images is not known: %s", error)
        return None


class MeasureTask(NamedTuple):
    """What to count the tokens of."""

    parts: Sequence[Part]
    has_vision: bool


def _evaluation_rows(config: RunConfig, secrets: Secrets, context: SourceContext, directory: Path, images: Images | None) -> int:
    dataset = config.spec.dataset
    source = Source(dataset.eval_uri or "", "dataset.evalUri", secrets.dataset, dataset.region)
    sample = sample_data(source, context, Split(dataset.split, dataset.config), directory)
    return check_rows([Part(dataset.parts[0], sample.files, sample.is_whole)], config.spec, images=images).facts.examples


def with_tokens(facts: DatasetFacts, measured: MeasuredTokens | None) -> DatasetFacts:
    """The facts with what was counted, if anything was."""
    if measured is None or not measured.rows:
        return facts
    tokens = {f"tokens_{name}": round(measured.tokens[name]) for name in ("p50", "p95", "max")}
    share = round(100 * measured.cut / measured.rows, 1)
    return facts.model_copy(update={"token_rows": measured.rows, **tokens, "truncated_percent": share})


def _measured(
    config: RunConfig, secrets: Secrets, context: SourceContext, environment: PodEnvironment, task: MeasureTask
) -> MeasuredTokens | None:
    """Tokens of the first rows; None where they cannot be counted, which is no reason to refuse the job."""
    tokenizer = _tokenizer_directory(config, secrets, context)
    if tokenizer is None:
        return None
    answer = measure_tokens(environment, environment.run_config, tokenizer, task)
    if answer is not None and answer.failure_class is not None:
        raise TrainerError(answer.failure_class, answer.message)
    return answer


def measure_tokens(environment: PodEnvironment, run_config: Path, tokenizer: Path, task: MeasureTask) -> MeasuredTokens | None:
    """Tokens of the first rows, counted by a program of its own as ``run_config`` says; None where that does not end as it should."""
    plan_file, output = environment.work_dir / "measure-plan.json", environment.work_dir / "measured.json"
    plan = MeasurePlan(
        run_config=run_config.absolute(),
        tokenizer_dir=tokenizer,
        files=[list(part.files) for part in task.parts],
        output=output,
        has_vision=task.has_vision,
    )
    plan_file.write_text(plan.to_json(), encoding="utf-8")
    code = _run(environment, plan_file)
    if code != EXIT_DONE or not output.is_file():
        logger.warning("tokens are not counted: the program ended with code %s", code)
        return None
    return MeasuredTokens.model_validate_json(output.read_bytes())


def _run(environment: PodEnvironment, plan_file: Path) -> int:
    """Run the prepare program; its output goes to the pod's log."""
    command = [*environment.program, "prepare"]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, ENV_MEASURE_PLAN: str(plan_file), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            check=False,
            timeout=MEASURE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


def _tokenizer_directory(config: RunConfig, secrets: Secrets, context: SourceContext) -> Path | None:
    """The tokenizer on local disk; None where it cannot be had, which the check of the model says better."""
    source = tokenizer_source(config.spec, secrets) or model_source(config.spec, secrets)
    try:
        return fetch_tokenizer(source, context).directory
    except TrainerError as error:
        logger.warning("tokens are not counted: %s", error.message)
        return None
