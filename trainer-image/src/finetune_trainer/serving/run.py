"""One server, from its config to its end."""

from __future__ import annotations

import logging
import time

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.serve import ServeConfig
from finetune_trainer.errors import TrainerError
from finetune_trainer.serving.board import Board
from finetune_trainer.serving.server import listening
from finetune_trainer.serving.weights import find_weights, load_dataset, load_prompts
from finetune_trainer.supervisor.environment import PodEnvironment, job_store, load_serve_config
from finetune_trainer.verbs.answer import Answer, Task, answer_task

logger = logging.getLogger(__name__)


def run_serve(environment: PodEnvironment) -> int:
    """Serve and answer; returns the exit code."""

    def read() -> Task:
        config = load_serve_config(environment.run_config)
        return Task(config.run.run, config.run.spec.logging.level, config.run.offline, lambda: serve(config, environment))

    return answer_task(environment, read)


def serve(config: ServeConfig, environment: PodEnvironment) -> Answer:
    """Listen, load, answer, and return once nobody has asked for ``idleSeconds``.

    Raises :class:`TrainerError` that names the weights, the device or the port that cannot be used.
    """
    board = Board(time.monotonic)
    with listening(config.port, board):
        board.tell("the libraries")
        from finetune_trainer.serving.generation import load_generator

        store = job_store(config.run, environment)
        weights = find_weights(config, environment, store, board.tell)
        try:
            generator = load_generator(weights, config, load_dataset(config, store), board.tell)
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            raise TrainerError(FailureClass.CUDA_OUT_OF_MEMORY, f"The model does not fit on the GPU: {error}") from error
        board.open(generator, generator.as_questions(load_prompts(store)), weights.words)
        logger.info("asked on port %s: %s", config.port, weights.words)
        asked = board.wait_until_idle(config.idle_seconds)
    return Answer(f"Nobody has asked for {config.idle_seconds} s; {asked} questions were answered.", {"answered": asked})
