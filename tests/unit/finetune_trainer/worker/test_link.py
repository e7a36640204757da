"""The worker's end of the link."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.protocol import WORKER_MESSAGES, Phase, SaveNow, Staged, Stop, SupervisorMessage
from finetune_trainer.worker.link import Link


@pytest.fixture
def server() -> Iterator[tuple[Path, socket.socket]]:
    """A listening socket and its path, which must be short."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = Path(directory) / "link.sock"
        listening.bind(str(path))
        listening.listen()
        yield path, listening


def test_messages_both_ways(server: tuple[Path, socket.socket]) -> None:
    """Reports in the order they were made; commands one by one; a message of a newer supervisor is passed over."""
    path, listening = server
    received: list[SupervisorMessage] = []
    all_there = threading.Event()

    def obey(message: SupervisorMessage) -> None:
        received.append(message)
        if len(received) == 3:
            all_there.set()

    with Link(path, obey) as link:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(Stop(trigger="pause").to_json().encode() + b'\n{"type": "dance"}\n')
            connection.sendall(b"".join(m.to_json().encode() + b"\n" for m in (SaveNow(), Staged(step=3))))
            assert all_there.wait(60)
            for counter in range(100):
                link.send(Phase(phase="Training", counter=counter))
            link.close()
            with connection.makefile("rb") as lines:
                messages = [WORKER_MESSAGES.validate_json(line) for line in lines]
    assert received == [Stop(trigger="pause"), SaveNow(), Staged(step=3)]
    assert messages == [Phase(phase="Training", counter=counter) for counter in range(100)]


def test_a_lost_supervisor_is_noticed(server: tuple[Path, socket.socket]) -> None:
    """A worker without its supervisor must not train on: nobody could stop it."""
    path, listening = server
    lost = threading.Event()
    link = Link(path, on_lost=lost.set)
    listening.accept()[0].close()
    assert lost.wait(60)
    link.close()


def test_closing_is_no_loss(server: tuple[Path, socket.socket]) -> None:
    """The end of a run is not an accident."""
    path, listening = server
    lost = threading.Event()
    link = Link(path, on_lost=lost.set)
    with listening.accept()[0]:
        link.close()
    assert not lost.is_set()


def test_a_forked_child_lets_go_of_the_connection(server: tuple[Path, socket.socket]) -> None:
    """The supervisor sees this process die even while its data loader processes live on."""
    path, listening = server
    holding, release = os.pipe()
    with Link(path):
        connection, _ = listening.accept()
        child = os.fork()
        if child == 0:
            os.close(release)
            os.read(holding, 1)
            os._exit(0)
    with connection, connection.makefile("rb") as lines:
        assert lines.read() == b""
    os.close(release)
    assert os.waitpid(child, 0)[1] == 0
    os.close(holding)
