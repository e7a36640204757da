from pathlib import Path

import pytest

from finetune_cluster.node.traces import Machine

FORWARD, BRIDGE = "net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    settings = tmp_path / "sys"
    for name in (FORWARD, BRIDGE):
        (settings / name).parent.mkdir(parents=True)
        (settings / name).write_text("0\n")
    return Machine(settings=settings, folders=(tmp_path / "kubelet", tmp_path / "cni"))


def test_the_machine_is_as_before_once_the_node_is_gone(machine: Machine, tmp_path: Path) -> None:
    ours, record = tmp_path / "kubelet", tmp_path / "node" / "traces.json"
    machine.change(record)
    assert (machine.settings / FORWARD).read_text() == "1"
    ours.mkdir()
    machine.restore(record)
    assert (machine.settings / FORWARD).read_text() == "0"
    assert (machine.settings / BRIDGE).read_text() == "0"
    assert not ours.exists()
    assert not record.exists()


def test_folders_of_another_kubernetes_stay(machine: Machine, tmp_path: Path) -> None:
    theirs, record = tmp_path / "cni" / "networks", tmp_path / "node" / "traces.json"
    theirs.mkdir(parents=True)
    machine.change(record)
    machine.restore(record)
    assert theirs.exists()


def test_a_second_start_does_not_take_the_changed_machine_for_the_original(machine: Machine, tmp_path: Path) -> None:
    record = tmp_path / "node" / "traces.json"
    machine.change(record)
    (tmp_path / "cni").mkdir()
    machine.change(record)
    machine.restore(record)
    assert (machine.settings / FORWARD).read_text() == "0"
    assert not (tmp_path / "cni").exists()


def test_without_a_record_nothing_is_touched(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "cni").mkdir()
    machine.restore(tmp_path / "node" / "traces.json")
    assert (tmp_path / "cni").exists()
