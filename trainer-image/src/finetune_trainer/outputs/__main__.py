"""``finetune-trainer outputs``: the processes the export verb starts; the plan's path is in ``FINETUNE_OUTPUTS_PLAN``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.plan import ENV_OUTPUTS_PLAN, OutputsPlan, OutputsResult


def main() -> int:
    """Do one step of a plan and write its result; returns 0, or the exit code of the failure in the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    plan = OutputsPlan.model_validate_json(Path(os.environ[ENV_OUTPUTS_PLAN]).read_text(encoding="utf-8"))
    try:
        result, code = _work(plan), 0
    except TrainerError as error:
        result, code = OutputsResult(failure_class=error.failure_class, message=error.message), error.exit_code
    plan.result.write_text(result.to_json(), encoding="utf-8")
    return code


def _work(plan: OutputsPlan) -> OutputsResult:
    if plan.step == "make":
        from finetune_trainer.outputs.make import make

        return make(plan)
    from finetune_trainer.outputs.check import check

    return check(plan)


if __name__ == "__main__":
    sys.exit(main())
