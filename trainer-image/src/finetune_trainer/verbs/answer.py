"""How a short verb answers: an exit code and a termination message, whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_DONE
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import CheckpointRef, UsageSeconds
from finetune_api.contract.termination import TerminationMessage
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.hub import configure_hub
from finetune_trainer.supervisor.environment import PodEnvironment, load_run_config
from finetune_trainer.supervisor.logs import configure_logging
from finetune_trainer.supervisor.outcome import Outcome, outcome_of_error
from finetune_trainer.supervisor.termination import write_termination_message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a verb found."""

    message: str
    result: dict[str, object]
    outcome: Outcome = field(default_factory=lambda: Outcome(EXIT_DONE))
    """Code and class; done unless the verb found a reason to refuse."""
    attempt: int | None = None
    step: int | None = None
    checkpoint: CheckpointRef | None = None
    final_uri: str | None = None
    usage: UsageSeconds | None = None
    warnings: list[str] = field(default_factory=list)


class Task(NamedTuple):
    """What a verb was told to do."""

    number: int
    """Of the run or look it is for."""
    log_level: str
    offline: bool
    work: Callable[[], Answer]


def run_verb(environment: PodEnvironment, work: Callable[[RunConfig], Answer]) -> int:
    """Read the run config, do the work, write the answer; returns the exit code."""

    def read() -> Task:
        config = load_run_config(environment.run_config)
        return Task(config.run, config.spec.logging.level, config.offline, lambda: work(config))

    return answer_task(environment, read)


def answer_task(environment: PodEnvironment, read: Callable[[], Task]) -> int:
    """Do what ``read`` returns and write the answer; returns the exit code."""
    run = 0
    configure_logging("info", run=run, pod=environment.pod_index)
    try:
        task = read()
        run = task.number
        configure_logging(task.log_level, run=run, pod=environment.pod_index)
        for directory in (environment.work_dir, environment.cache_dir):
            directory.mkdir(parents=True, exist_ok=True)
        configure_hub(environment.cache_dir, offline=task.offline)
        answer = task.work()
    except TrainerError as error:
        answer = Answer(error.message, {}, outcome_of_error(error))
    except Exception as error:
        logger.exception("the verb failed unexpectedly")
        outcome = outcome_of_error(error)
        answer = Answer(outcome.message, {}, outcome)
    logger.log(logging.INFO if answer.outcome.exit_code == EXIT_DONE else logging.ERROR, "%s", answer.message)
    write_termination_message(environment.termination_message, _message(environment, run, answer))
    return answer.outcome.exit_code


def _message(environment: PodEnvironment, run: int, answer: Answer) -> TerminationMessage:
    return TerminationMessage(
        contract_version=CONTRACT_VERSION,
        run=run,
        pod=environment.pod_index,
        attempt=answer.attempt,
        exit_code=answer.outcome.exit_code,
        failure_class=answer.outcome.failure_class,
        message=answer.message,
        step=answer.step,
        checkpoint=answer.checkpoint,
        final_uri=answer.final_uri,
        usage=answer.usage,
        warnings=answer.warnings,
        result=answer.result,
    )
