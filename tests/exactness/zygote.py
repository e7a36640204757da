"""Starts processes fast: one that has paid for the imports forks a child per request, which then runs a real entry point.

Its arguments are modules that the imports shall not find.
Reads requests as JSON lines ``{"module", "env", "log", "max_file_bytes"}`` from stdin; answers ``{"pid": n}`` at once and
``{"pid": n, "code": c}`` when that child ends. The module's ``main()`` returns its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from typing import Any


def main() -> None:
    """Import what a worker imports, then fork on request."""
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "DISABLE_KUBEFLOW_INTEGRATION": "TRUE"})
    from finetune_trainer.worker.start import hide_modules  # noqa: PLC0415  # after the environment is set

    os.environ["DS_ACCELERATOR"] = "cpu"
    hide_modules(sys.argv[1:])
    import finetune_trainer.worker.run  # noqa: F401, PLC0415  # after the needless modules are hidden
    from finetune_trainer.worker.methods import MODULES, method_module  # noqa: PLC0415  # likewise

    for method in MODULES:
        method_module(method)

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
            become(request)
        say({"pid": pid})
        threading.Thread(
            target=lambda child=pid: say({"pid": child, "code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}), daemon=True
        ).start()


def become(request: dict[str, Any]) -> None:
    """Run an entry point in this process and end it with its code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(0)
    if request["max_file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_file_bytes"],) * 2)
    os.environ.update(request["env"])
    code = 1
    try:
        code = importlib.import_module(request["module"]).main()
    except Exception:  # noqa: BLE001  # shown in the log, as a process of its own would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
