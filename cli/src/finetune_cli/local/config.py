"""From a resolved manifest to what the local pods are told, as the operator does it for a cluster."""

from __future__ import annotations

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import identity, processes_per_replica
from finetune_cli.errors import CliError
from finetune_cli.local.directory import LocalDirectory

NAMESPACE = "local"


def build_run_config(name: str, spec: FineTuneJobSpec, directory: LocalDirectory, *, run: int, master_port: int) -> RunConfig:
    """What one run is told.

    Raises:
        CliError: the manifest itself pauses the job, or another program than our trainer is to train.
    """
    if spec.method_ref is not None:
        name = spec.method_ref.name
        raise CliError(f"spec.methodRef: TrainingMethod {name} is a program of a cluster's administrators; only built-in methods run here")
    if spec.replicas == 0 or spec.suspend:
        field = "replicas is 0" if spec.replicas == 0 else "suspend is true"
        raise CliError(f"spec.{field}: the manifest pauses the job, so there is nothing to run")
    return RunConfig(
        contract_version=CONTRACT_VERSION,
        job=JobIdentity(name=name, namespace=NAMESPACE, uid=directory.uid),
        run=run,
        spec=spec,
        topology=Topology(
            replicas=spec.replicas,
            processes_per_replica=processes_per_replica(spec),
            device=spec.resources.device,
            master_addr="localhost",
            master_port=master_port,
        ),
        store=StoreConfig(uri=directory.store.absolute().as_uri()),
    )


def check_same_training(before: RunConfig, now: FineTuneJobSpec, directory: LocalDirectory) -> None:
    """Refuse to go on with another training, as the operator refuses it.

    Raises:
        CliError: a field that makes the training what it is was changed; all are named.
    """
    old, new = identity(before.spec), identity(now)
    changed = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    if changed:
        lines = "\n".join(f"  spec.{path}: {old.get(path)} → {new.get(path)}" for path in changed)
        raise CliError(
            f"{directory.root} holds another training; these fields cannot change once it has begun:\n{lines}",
            advice="Change them back, or start anew in another --dir.",
        )
