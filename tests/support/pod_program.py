"""The supervisor as a pod runs it, with fake worker and prepare programs and the paths of a test."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from finetune_trainer.supervisor.signals import StopSignals

if __name__ == "__main__":
    signals = StopSignals()
    signals.install()
    from finetune_trainer.supervisor.environment import pod_environment
    from finetune_trainer.supervisor.train import run_train

    fake = (sys.executable, "-P", str(Path(__file__).with_name("fake_program.py")))
    environment = dataclasses.replace(
        pod_environment(os.environ), program=fake, progress_token=Path(os.environ["TEST_TOKEN"]), progress_ca=Path(os.environ["TEST_CA"])
    )
    code = run_train(signals, environment, os.environ)
    sys.stdout.flush()
    os._exit(code)
