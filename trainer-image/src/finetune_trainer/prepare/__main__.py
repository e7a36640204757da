"""``python -m finetune_trainer.prepare``: prepares rows for training, or measures some of them for preflight; no torch.

The supervisor of pod 0 names a plan in ``FINETUNE_PREPARE_PLAN``, preflight one in ``FINETUNE_MEASURE_PLAN``.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """Do as planned; returns 0, or the code of a user error after saying it. Needs a process of its own."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    from finetune_trainer.prepare.tokenizer import import_transformers_without_torch
    from finetune_trainer.protocol import ENV_MEASURE_PLAN

    import_transformers_without_torch()
    return _measure(Path(os.environ[ENV_MEASURE_PLAN])) if ENV_MEASURE_PLAN in os.environ else _prepare()


def _prepare() -> int:
    """Prepare all rows; progress, warnings and the reason of a failure go over the link."""
    from finetune_trainer.errors import TrainerError
    from finetune_trainer.prepare.run import prepare
    from finetune_trainer.protocol import ENV_LINK, ENV_PREPARE_PLAN, Failed, Phase, PreparePlan, Warned
    from finetune_trainer.worker.link import Link

    plan = PreparePlan.model_validate_json(Path(os.environ[ENV_PREPARE_PLAN]).read_text())
    with Link(Path(os.environ[ENV_LINK])) as link:
        try:
            summary = prepare(plan, lambda rows: link.send(Phase(phase="Preparing", counter=rows)))
        except TrainerError as error:
            link.send(Failed(failure_class=error.failure_class, message=error.message))
            return error.exit_code
        for condition, message in summary.warnings.items():
            link.send(Warned(condition=condition, message=message))
    return 0


def _measure(plan_file: Path) -> int:
    """Count tokens of some rows; the answer is a file."""
    from finetune_trainer.errors import TrainerError
    from finetune_trainer.prepare.measure import measure
    from finetune_trainer.protocol import MeasuredTokens, MeasurePlan

    plan = MeasurePlan.model_validate_json(plan_file.read_text())
    try:
        answer = measure(plan)
    except TrainerError as error:
        answer = MeasuredTokens(rows=0, failure_class=error.failure_class, message=error.message)
    plan.output.write_text(answer.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
