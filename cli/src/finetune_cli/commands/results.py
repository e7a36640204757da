"""artifacts, download: what a finished job left, and bringing it here."""

from __future__ import annotations

import enum
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finetune_api.contract.store import FINAL_PREFIX
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.options import Context, Kubeconfig, Name, Namespace, open_target
from finetune_cli.store import Store, StoredFile, job_store
from finetune_cli.terminal import format_bytes

MERGED, GGUF = f"{FINAL_PREFIX}/merged/", f"{FINAL_PREFIX}/gguf/"


class Form(enum.StrEnum):
    """Which form of the result."""

    FINAL = "final"
    MERGED = "merged"
    GGUF = "gguf"


def artifacts(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """List what a finished job left: final weights, merged model, GGUF files, repository on a hub."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    Console().print(render_artifacts(cluster.job(ref)))


def render_artifacts(job: Job) -> Table:
    """One row per form of the result.

    Raises:
        CliError: there is no result yet.
    """
    found = job.status.artifacts
    if found.final_uri is None:
        raise CliError(f"{job.ref} has no result yet; its phase is {job.phase}")
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("form", "size", "difference", "where", "digest"):
        table.add_column(column, overflow="fold")
    table.add_row("adapter" if found.kind == "lora" else "model", "", "", found.final_uri, "")
    for output in found.outputs:
        table.add_row(
            output.name or output.type,
            format_bytes(output.size_bytes),
            "" if output.max_delta is None else f"{output.max_delta:.3g}",
            output.uri,
            (output.digest or "")[:16],
        )
    return table


def download(
    name: Name,
    directory: Annotated[Path, typer.Argument(help="Directory to write to; made if it does not exist.", metavar="DIR")],
    form: Annotated[Form, typer.Option(help="final = adapter or whole model as trained.")] = Form.FINAL,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Download a result from the job's store."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    with job_store(cluster.job(ref), cluster) as store:
        fetch_form(store, form, directory, Console())


def fetch_form(store: Store, form: Form, directory: Path, console: Console) -> None:
    """Bring all files of a form into a directory.

    Raises:
        CliError: the job has no such form, or a file cannot be read or written.
    """
    prefix = {Form.FINAL: f"{FINAL_PREFIX}/", Form.MERGED: MERGED, Form.GGUF: GGUF}[form]
    files = [file for file in store.files(prefix) if form is not Form.FINAL or not file.key.startswith((MERGED, GGUF))]
    if not files:
        raise CliError(f"{store.uri}/{prefix} is empty: the job has no result of the form {form}")
    for file in files:
        target = directory / _relative(file, prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(file.key, target)
        console.print(f"{target} ({format_bytes(file.size)})", soft_wrap=True, highlight=False)


def _relative(file: StoredFile, prefix: str) -> PurePosixPath:
    path = PurePosixPath(file.key.removeprefix(prefix))
    if path.is_absolute() or ".." in path.parts:
        raise CliError(f"{file.key} is no name inside a directory; it is not downloaded")
    return path
