"""``python -m finetune_trainer.prepare``: the process the supervisor of pod 0 starts; its plan's path is in ``FINETUNE_PREPARE_PLAN``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> int:
    """Prepare rows as planned; returns 0, or the code of a user error after a ``failed`` on the link. Needs a process of its own."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    _import_transformers_without_torch()
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


def _import_transformers_without_torch() -> None:
    """Transformers imports torch wherever it is installed (5 s, 300 MB); rows need none of it. It looks once and keeps the answer.

    None in ``sys.modules`` makes a module not importable. It must not stay there: datasets takes the bare entry for a torch that is
    loaded, and imports it.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers

    assert not transformers.is_torch_available()
    del sys.modules["torch"]


if __name__ == "__main__":
    sys.exit(main())
