"""Starts workers fast: a process that has paid for the imports forks one child per worker, which then runs the real entry point.

Reads requests as JSON lines ``{"env": {...}, "log": path}`` from stdin; answers ``{"pid": n}`` at once and ``{"pid": n, "code": c}``
when that child ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading


def main() -> None:
    """Import what a worker imports, then fork on request."""
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "DISABLE_KUBEFLOW_INTEGRATION": "TRUE"})
    from finetune_trainer.worker.start import hide_modules  # noqa: PLC0415  # after the environment is set

    hide_modules(["wandb", "deepspeed"])
    import finetune_trainer.worker.run  # noqa: F401, PLC0415  # after the needless modules are hidden

    lock = threading.Lock()

    def say(message: dict[str, int]) -> None:
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    say({"pid": 0})
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become_worker(request["env"], request["log"], request["max_file_bytes"])
        say({"pid": pid})
        threading.Thread(
            target=lambda child=pid: say({"pid": child, "code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}), daemon=True
        ).start()


def become_worker(environment: dict[str, str], log: str, max_file_bytes: int | None) -> None:
    """Run the worker's entry point in this process and end it with its code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(0)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    os.environ.update(environment)
    code = 1
    try:
        from finetune_trainer.worker.__main__ import main as worker  # noqa: PLC0415  # only the child is a worker

        code = worker()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
