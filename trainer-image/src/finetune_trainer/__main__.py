"""``finetune-trainer <verb>``: the one entrypoint of the image.

The stop signals are caught before anything but the standard library is imported: a pause while libraries load must not hold a GPU
until the grace period ends, not even in an image without tini, where this process is PID 1 and has no default action for them.
"""

from __future__ import annotations

import sys

from finetune_trainer.supervisor.signals import StopSignals


def main() -> None:
    """Run a verb and leave with its exit code; threads that still wait for a network are not waited for."""
    signals = StopSignals()
    signals.install()
    import logging
    import os

    from finetune_trainer.verbs.command_line import parse, run, run_program

    verb = parse(sys.argv[1:])
    if verb.program is not None:
        sys.exit(run_program(verb.program))
    code = run(verb, signals)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
