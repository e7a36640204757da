import pytest

from finetune_cluster.errors import ClusterError
from finetune_cluster.waiting import NotYetError, wait_until


def test_it_asks_again_until_the_condition_holds() -> None:
    answers = [NotYetError("not yet"), NotYetError("not yet"), None]

    def probe() -> None:
        if answer := answers.pop(0):
            raise answer

    wait_until("it is so", probe, timeout_seconds=60)
    assert answers == []


def test_in_the_end_it_says_what_was_seen_instead() -> None:
    def probe() -> None:
        raise NotYetError("seen something else")

    with pytest.raises(ClusterError, match=r"it is so.*seen something else") as raised:
        wait_until("it is so", probe, timeout_seconds=0)
    assert not isinstance(raised.value, NotYetError)


def test_another_error_ends_the_wait_at_once() -> None:
    def probe() -> None:
        raise ClusterError("etcd has ended")

    with pytest.raises(ClusterError, match="etcd has ended"):
        wait_until("it is so", probe, timeout_seconds=60)
