"""A trainer pod as a process of this machine: the real supervisor and workers; only the token's path is the benchmark's."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from finetune_trainer.supervisor.signals import StopSignals

ENV_TOKEN = "BENCHMARK_TOKEN"

if __name__ == "__main__":
    signals = StopSignals()
    signals.install()
    from finetune_trainer.supervisor.environment import pod_environment
    from finetune_trainer.supervisor.train import run_train

    token = Path(os.environ[ENV_TOKEN])
    environment = dataclasses.replace(pod_environment(os.environ), progress_token=token, progress_ca=token.with_name("ca.crt"))
    code = run_train(signals, environment, os.environ)
    sys.stdout.flush()
    os._exit(code)
