"""Trackers beside a real run: they see its values, and one that is away changes nothing."""

from __future__ import annotations

from finetune_trainer.protocol import Warned
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import steps_of, weights
from tests.support.ports import free_port


def test_tensorboard_and_a_server_that_is_away(make_run: MakeRun) -> None:
    """Event files are written, the missing server is a warning, and every number is that of a run without trackers."""
    plain = make_run().attempt()
    away = f"http://127.0.0.1:{free_port()}"
    run = make_run({"logging": {"trackers": [{"type": "tensorboard"}, {"type": "mlflow", "uri": away}]}})
    tracked = run.attempt()
    assert tracked.codes == [0], tracked.log
    assert steps_of(tracked) == steps_of(plain)
    assert weights(tracked) == weights(plain)
    assert {message.condition for message in tracked.of(Warned) if message.message} == {"TrackerMlflowUnavailable"}
    assert list((run.directory / "attempt-1" / "tensorboard").glob("events.out.tfevents.*.attempt-1"))
