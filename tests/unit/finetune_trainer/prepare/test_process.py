"""The prepare process: from the plan in its environment to rows and messages on the link, without torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from datasets import load_from_disk

from finetune_trainer.protocol import ENV_LINK, ENV_PREPARE_PLAN, WORKER_MESSAGES, Failed, Phase, PreparePlan, Warned, WorkerMessage
from tests.unit.finetune_trainer.prepare.conftest import MakePlan, chats

PROGRAM = """
import sys
from finetune_trainer.prepare.__main__ import main
code = main()
assert "torch" not in sys.modules, "preparing rows needs no torch"
sys.exit(code)
"""


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    messages: list[WorkerMessage]
    log: str


def execute(plan: PreparePlan) -> Ended:
    """Run the process as a supervisor does."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        link = Path(short) / "link.sock"
        server.bind(str(link))
        server.listen()
        file = Path(short) / "plan.json"
        file.write_text(plan.to_json())
        environment = {**os.environ, ENV_PREPARE_PLAN: str(file), ENV_LINK: str(link)}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            return Ended(done.returncode, [WORKER_MESSAGES.validate_json(line) for line in lines], done.stderr)


def test_rows_heartbeat_and_warnings(make_plan: MakePlan) -> None:
    """Rows that datasets can open, progress and warnings for the status."""
    plan = make_plan(chats(8) + chats(2, words=200))
    ended = execute(plan)
    assert ended.code == 0, ended.log
    assert len(load_from_disk(plan.output_dir / "train")) == 10
    phases = [message for message in ended.messages if isinstance(message, Phase)]
    assert [(phase.phase, phase.counter) for phase in phases] == [("Preparing", 10)]
    assert [message.condition for message in ended.messages if isinstance(message, Warned)] == ["ExcessiveTruncation", "DatasetSmall"]


def test_a_bad_row_ends_it_by_name(make_plan: MakePlan) -> None:
    """DataError with file, line and field; exit 42."""
    ended = execute(make_plan([*chats(3), {"messages": [{"role": "robot", "content": "x"}]}]))
    assert ended.code == 42
    (failed,) = ended.messages
    assert isinstance(failed, Failed)
    assert failed.failure_class == "DataError"
    assert failed.message.startswith("train.jsonl, line 4: messages[0].role must be one of")
