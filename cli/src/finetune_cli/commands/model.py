"""model pull: a model of the hub into the store, so that jobs need neither the hub nor a token."""

from __future__ import annotations

from typing import Annotated

import typer

from finetune_cli.options import Context, Kubeconfig, Namespace

app = typer.Typer(help="Bring models to the cluster.", no_args_is_help=True)
"""``kubectl finetune model``."""


@app.callback()
def model() -> None:
    """Bring models to the cluster."""


@app.command()
def pull(  # noqa: PLR0913, PLR0917  # the options of a command
    model: Annotated[str, typer.Argument(metavar="ID", help="Model of the hub: org/name.")],
    to: Annotated[str, typer.Option("--to", metavar="URI", help="Where it goes: an empty path in a bucket, s3://bucket/path.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit. Default: the main branch as it is now.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Secret with the store's keys. Default: that of the jobs, finetune-storage unless the chart says otherwise."),
    ] = None,
    hub_secret: Annotated[
        str | None, typer.Option(help="Secret with HF_TOKEN for gated and private models (and HF_ENDPOINT for another hub).")
    ] = None,
    register: Annotated[str | None, typer.Option(metavar="NAME", help="Also make a BaseModel of it, which jobs name as ref:NAME.")] = None,
    image: Annotated[str | None, typer.Option(help="Trainer image. Default: the operator's, with its proxy and CA settings.")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Download a model into the store by a Job in the cluster. Asked again, it shows how far the Job is, or goes on where it ended."""
    from rich.console import Console

    from finetune_api.contract.pull import PullResult
    from finetune_cli.access import Access
    from finetune_cli.job_runner import JobRunner
    from finetune_cli.pull import Pull, build_base_model, build_pull, provisional
    from finetune_cli.short_jobs import Surroundings
    from finetune_cli.terminal import format_bytes, telling

    access = Access(kubeconfig, context)
    inside, console = namespace or access.namespace(), Console(soft_wrap=True)
    runner = JobRunner(access.connect())
    here = Surroundings(image) if image else runner.surroundings(inside)
    asked = Pull(model, revision, to, inside, secret or here.store_secret, hub_secret)
    objects = build_pull(asked, here)
    if register is not None:
        runner.register(build_base_model(register, provisional(asked), asked), dry_run=True)
    name = objects.job["metadata"]["name"]
    is_new = runner.start(objects)
    console.print(f"job/{name} in namespace {asked.namespace} {'started' if is_new else 'is under way'}; it goes on without this command")
    with telling(console) as tell:
        result = PullResult.model_validate(runner.follow(name, asked.namespace, tell))
    kept = f", {result.kept} of them before" if result.kept else ""
    console.print(
        f"{result.files} files{kept}, {format_bytes(result.size_bytes)}: {asked.uri} at commit {result.commit} is at {result.uri}"
    )
    if register is not None:
        created = runner.register(build_base_model(register, result, asked))
        console.print(f"basemodel/{register} {'created' if created else 'was there already'}; jobs name it as model.uri ref:{register}")
    else:
        console.print(f"  model: {{uri: {result.uri}}}", highlight=False)
