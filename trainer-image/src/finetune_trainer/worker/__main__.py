"""``python -m finetune_trainer.worker``: one training rank, started by the supervisor with torchrun's environment."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final, NoReturn

from finetune_api.contract.run_config import RunConfig
from finetune_trainer.protocol import ENV_LINK, ENV_WORKER_PLAN, Failed, WorkerPlan
from finetune_trainer.worker.logs import set_up_logging
from finetune_trainer.worker.rank import read_rank
from finetune_trainer.worker.start import Start, hide_modules, needless_modules, prepare_environment, start

log = logging.getLogger(__name__)

EXIT_SECONDS: Final = 10.0


def main() -> int:
    """Run one rank; returns its exit code. On a failure the process ends here: peers and libraries may never let it end otherwise."""
    started = time.monotonic()
    # A stalled rank shows its stacks: the supervisor sends SIGUSR1 before it gives up on it.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    plan = WorkerPlan.model_validate_json(Path(os.environ[ENV_WORKER_PLAN]).read_text())
    config = RunConfig.model_validate_json(plan.run_config.read_text())
    rank = read_rank(os.environ)
    set_up_logging(config.spec.logging.level, rank.rank)
    worker = start(plan, config, rank, Path(os.environ[ENV_LINK]))
    prepare_environment(os.environ, config, rank)
    hide_modules(needless_modules(config, plan))
    try:
        from finetune_trainer.worker.run import run

        code = run(worker, started)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the supervisor is told, and the code is the cause's
        return fail(worker, error)
    return end(worker, code)


def end(worker: Start, code: int) -> int:
    """Hand over the last messages; a library that hangs in its clean-up must not hold the pod."""
    worker.link.close()
    watchdog = threading.Timer(EXIT_SECONDS, lambda: os._exit(code))
    watchdog.daemon = True
    watchdog.start()
    return code


def fail(worker: Start, error: BaseException) -> NoReturn:
    """Tell the supervisor why this rank ends, and end it."""
    from finetune_trainer.worker.failures import as_trainer_error

    failure = as_trainer_error(error, worker.config.spec)
    log.error(failure.message, exc_info=error)
    worker.link.send(
        Failed(failure_class=failure.failure_class, message=failure.message, step=failure.step, steady_until=failure.steady_until)
    )
    worker.link.close()
    logging.shutdown()
    os._exit(failure.exit_code)


if __name__ == "__main__":
    sys.exit(main())
