"""Programs that e2e tests run inside trainer pods with `kubectl exec`: they find a moment and, where asked, kill a worker in it."""

from __future__ import annotations

from finetune_api.contract.env import WORK_DIR

PREAMBLE = f"""
import os, pathlib, signal, time
WORK = pathlib.Path({WORK_DIR!r})
def kill(rank):
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
        if entry.name in ('1', str(os.getpid())):
            continue
        try:
            environment = (entry / 'environ').read_bytes().split(b'\\0')
        except OSError:
            continue
        if b'RANK=%d' % rank in environment and any(line.startswith(b'FINETUNE_LINK') for line in environment):
            os.kill(int(entry.name), signal.SIGKILL)
def find(folder, at_least, is_it):
    while True:
        for directory in (WORK / folder).glob('checkpoint-*'):
            step = int(directory.name[11:])
            if step >= at_least and any(directory.iterdir()) and is_it(directory):
                print(step)
                return
        time.sleep(0.002)
"""


def kill_worker(rank: int) -> str:
    """SIGKILL the worker of a rank."""
    return f"{PREAMBLE}kill({rank})\n"


def kill_in_save(rank: int, at_least: int) -> str:
    """SIGKILL the worker of a rank while rank 0 of its pod writes a checkpoint of at least this step; prints the step."""
    return f"{PREAMBLE}find('output', {at_least}, lambda d: not (d / 'finetune_state.json').exists())\nkill({rank})\n"
