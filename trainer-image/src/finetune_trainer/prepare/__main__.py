"""``python -m finetune_trainer.prepare``: prepares rows for training, or measures some of them for preflight; torch only to see images.

The supervisor of pod 0 names a plan in ``FINETUNE_PREPARE_PLAN``, preflight one in ``FINETUNE_MEASURE_PLAN``.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune_trainer.protocol import MeasurePlan, PreparePlan


def main() -> int:
    """Do as planned; returns 0, or the code of a user error after saying it. Needs a process of its own."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    from finetune_trainer.protocol import ENV_MEASURE_PLAN, ENV_PREPARE_PLAN, MeasurePlan, PreparePlan

    if ENV_MEASURE_PLAN in os.environ:
        measured = MeasurePlan.model_validate_json(Path(os.environ[ENV_MEASURE_PLAN]).read_text())
        _set_torch_aside(has_vision=measured.has_vision)
        return _measure(measured)
    plan = PreparePlan.model_validate_json(Path(os.environ[ENV_PREPARE_PLAN]).read_text())
    _set_torch_aside(has_vision=plan.has_vision)
    return _prepare(plan)


def _set_torch_aside(*, has_vision: bool) -> None:
    """Rows of texts need no torch; the processors of vision-language models do."""
    from finetune_trainer.prepare.tokenizer import import_transformers_without_torch

    if not has_vision:
        import_transformers_without_torch()


def _prepare(plan: PreparePlan) -> int:
    """Prepare all rows; progress, warnings and the reason of a failure go over the link."""
    from finetune_trainer.errors import TrainerError
    from finetune_trainer.prepare.run import prepare
    from finetune_trainer.protocol import ENV_LINK, Failed, Phase, Warned
    from finetune_trainer.worker.link import Link

    with Link(Path(os.environ[ENV_LINK])) as link:
        try:
            summary = prepare(plan, lambda rows: link.send(Phase(phase="Preparing", counter=rows)))
        except TrainerError as error:
            link.send(Failed(failure_class=error.failure_class, message=error.message))
            return error.exit_code
        for condition, message in summary.warnings.items():
            link.send(Warned(condition=condition, message=message))
    return 0


def _measure(plan: MeasurePlan) -> int:
    """Count tokens of some rows; the answer is a file."""
    from finetune_trainer.errors import TrainerError
    from finetune_trainer.prepare.measure import measure
    from finetune_trainer.protocol import MeasuredTokens

    try:
        answer = measure(plan)
    except TrainerError as error:
        answer = MeasuredTokens(rows=0, failure_class=error.failure_class, message=error.message)
    plan.output.write_text(answer.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
