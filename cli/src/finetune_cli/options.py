"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from finetune_cli.access import Access
from finetune_cli.job import JobRef

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

Name = Annotated[str, typer.Argument(help="Name of the FineTuneJob.", metavar="NAME")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace. Default: the context's.")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="Kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.")]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig. Default: the current one.")]
Manifest = Annotated[Path, typer.Option("--file", "-f", help="Manifest with a FineTuneJob; - reads standard input.", metavar="FILE")]
PresetFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--preset-file",
        "--base-model-file",
        "--dataset-file",
        "--gpu-type-file",
        help="Manifest with presets, TrainingMethods, BaseModels, Datasets and GpuTypes that the job names; before the shipped ones. "
        "Repeatable.",
        metavar="FILE",
    ),
]

Target: TypeAlias = "tuple[Cluster, JobRef]"
"""A connected cluster and the job that is meant."""


def open_target(name: str, namespace: str | None, kubeconfig: str | None, context: str | None) -> Target:
    """Connect, and complete the job's name with its namespace."""
    access = Access(kubeconfig, context)
    return access.connect(), JobRef(name, namespace or access.namespace())
