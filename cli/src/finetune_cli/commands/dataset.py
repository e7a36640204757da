"""dataset pack: images and rows as a ZIP. dataset upload: a file as a Dataset. dataset publish: a Dataset or a file on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune_cli.options import Context, Kubeconfig, Namespace

app = typer.Typer(help="Make files of training data, and bring them to the cluster.", no_args_is_help=True)
"""``kubectl finetune dataset``."""
Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Directory with train.jsonl and the images it names.", exists=True, file_okay=False)
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="ZIP", help="File to write. Unset: DIR.zip beside the directory.")]


@app.callback()
def dataset() -> None:
    """Make files of training data, and bring them to the cluster."""


@app.command()
def pack(directory: Directory, output: Output = None) -> None:
    """Put the content of a directory into a ZIP, train.jsonl at its root, after a look at the rows. Needs no cluster."""
    from rich.console import Console

    from finetune_cli.packing import pack_directory

    target = output or directory.resolve().with_suffix(".zip")
    packed = pack_directory(directory, target)
    Console(soft_wrap=True).print(f"{target}: {packed.rows} rows, {packed.files} other files, {target.stat().st_size} bytes")


@app.command()
def upload(  # noqa: PLR0913, PLR0917  # the options of a command
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows: .jsonl, .json, .csv, .parquet, .txt or .zip.")],
    name: Annotated[str, typer.Option("--name", help="Name of the Dataset; one that exists gets the new file.")],
    description: Annotated[str | None, typer.Option(help="What is in it.")] = None,
    row_format: Annotated[str | None, typer.Option("--format", help="How a row is read. Default: the first row tells.")] = None,
    store: Annotated[str, typer.Option(help="Where to put it: the bucket of the jobs (chart value storage.bucket).")] = "s3://finetune",
    secret: Annotated[
        str | None,
        typer.Option(help="Secret with the store's keys. Default: that of the jobs, finetune-storage unless the chart says otherwise."),
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Upload a file into the store under a key made of its content, and make a Dataset of it that jobs name as ref:NAME."""
    from rich.console import Console

    from finetune_cli.access import Access
    from finetune_cli.datasets import Upload, upload_file
    from finetune_cli.installation import OPERATOR, store_secret

    access = Access(kubeconfig, context)
    inside, cluster = namespace or access.namespace(), access.connect()
    asked = Upload(
        file=file,
        name=name,
        namespace=inside,
        store=store,
        secret=secret or store_secret(cluster.deployments(OPERATOR), inside),
        more={key: value for key, value in {"description": description, "format": row_format}.items() if value is not None},
    )
    done = upload_file(asked, cluster)
    console = Console(soft_wrap=True)
    console.print(f"{file}: {'uploaded to' if done.is_new else 'is already at'} {done.uri}")
    console.print(f"dataset/{name} {'created' if done.created else 'changed'} in namespace {asked.namespace}; a pod looks at it now: ")
    console.print(f"  kubectl get dataset {name} -n {asked.namespace} --watch", highlight=False)


@app.command()
def publish(  # noqa: PLR0913, PLR0917  # the options of a command
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A Dataset of the namespace, or a file; it goes to the store first.")],
    to: Annotated[str, typer.Option("--to", metavar="URI", help="Repository of the hub: hf://org/name; made if it does not exist.")],
    hub_secret: Annotated[str, typer.Option(help="Secret with HF_TOKEN that may write (and HF_ENDPOINT for another hub).")],
    private: Annotated[bool, typer.Option("--private", help="A repository that is made can be seen by its members only.")] = False,
    store: Annotated[str, typer.Option(help="Where a file is put on its way.")] = "s3://finetune",
    secret: Annotated[
        str | None,
        typer.Option(help="Secret with the store's keys. Default: that of the jobs, finetune-storage unless the chart says otherwise."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Trainer image. Default: the operator's, with its proxy and CA settings.")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Put the data of a Dataset, or a file, on a hub by a Job in the cluster. Asked again, it shows how far the Job is."""
    from rich.console import Console

    from finetune_api.contract.publish import PublishResult
    from finetune_cli.access import Access
    from finetune_cli.datasets import Upload, stored_spec
    from finetune_cli.job_runner import JobRunner
    from finetune_cli.publishing import Publication, build_publication, find_dataset
    from finetune_cli.short_jobs import Surroundings
    from finetune_cli.terminal import format_bytes, telling

    access = Access(kubeconfig, context)
    inside = namespace or access.namespace()
    cluster = access.connect()
    runner = JobRunner(cluster)
    here = Surroundings(image) if image else runner.surroundings(inside)
    if Path(what).is_file():
        spec = stored_spec(Upload(Path(what), "published", inside, store, secret or here.store_secret), cluster)
    else:
        spec = find_dataset(cluster.datasets(inside), what, inside)
    objects = build_publication(Publication(spec, to, private, hub_secret, inside), here)
    name, console = objects.job["metadata"]["name"], Console(soft_wrap=True)
    is_new = runner.start(objects)
    console.print(f"job/{name} in namespace {inside} {'started' if is_new else 'is under way'}; it goes on without this command")
    with telling(console) as tell:
        result = PublishResult.model_validate(runner.follow(name, inside, tell))
    console.print(f"{result.files} files, {format_bytes(result.size_bytes)}, are at {result.url} (commit {result.commit})")
