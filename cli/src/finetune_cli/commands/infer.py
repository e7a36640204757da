"""infer, chat: asking what a job has trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_api.contract.serve import MAX_NEW_TOKENS, MOST_NEW_TOKENS, PRESETS, REPETITION_PENALTY, Form, Preset, Question, Sampling
from finetune_cli.asking import Manner, Server, await_loaded, samples_of_dataset
from finetune_cli.conversation import HELP, Conversation, show_history
from finetune_cli.errors import CliError
from finetune_cli.history import History, history_of
from finetune_cli.options import Context, Kubeconfig, Namespace, open_target
from finetune_cli.serving import Asked
from finetune_cli.terminal import telling

OptionalName = Annotated[str | None, typer.Argument(help="Name of the FineTuneJob; not needed with --dir.", metavar="[NAME]")]
Directory = Annotated[Path | None, typer.Option("--dir", help="Directory of a local run instead of a job of a cluster.")]
WhichForm = Annotated[Form, typer.Option("--form", help="final = as trained; merged = the merged model of the export, alone.")]
Checkpoint = Annotated[int | None, typer.Option(min=1, help="Step of a checkpoint to ask instead of the result.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="Load it on one GPU. Default: on CPUs.")]
Image = Annotated[str | None, typer.Option(help="Trainer image. Default: the operator's, with its proxy and CA settings.")]
WhichPreset = Annotated[
    Preset,
    typer.Option("--preset", help="How answers are drawn: always the likeliest token, some freedom (temperature 0.7), much of it (1.0)."),
]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="Instead of the preset's; 0 = always the likeliest token.")]
TopP = Annotated[float | None, typer.Option("--top-p", min=0.01, max=1, help="Instead of the preset's.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, max=MOST_NEW_TOKENS, help="Longest answer.")]
Penalty = Annotated[float, typer.Option("--repetition-penalty", min=1, max=2, help="1 = none.")]
SamplesFrom = Annotated[
    str | None, typer.Option(metavar="DATASET", help="Samples are the rows that the status of this Dataset shows. Default: the job's data.")
]


@dataclass(frozen=True)
class Subject:
    """What is asked: a job of a cluster, or a local run."""

    label: str
    uid: str
    history: History
    server: Callable[[], Server]
    """Made when it is needed: what only looks at the history needs no result."""
    stop: Callable[[], Sequence[str]]
    """Ends its servers; returns their names."""
    dataset: Callable[[str], dict[str, object]]
    """Looks up a Dataset."""


def infer(  # noqa: PLR0913, PLR0917  # the options of a command
    name: OptionalName = None,
    prompt: Annotated[str | None, typer.Option(help="Ask this, as a user would.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The prompt goes to the model as it is: no system prompt, no template.")] = False,
    sample: Annotated[int | None, typer.Option(min=1, help="Ask the sample of this number.")] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Show other prompts of the job's data from now on.")] = False,
    samples_from: SamplesFrom = None,
    preset: WhichPreset = Preset.DETERMINISTIC,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    repetition_penalty: Penalty = REPETITION_PENALTY,
    checkpoint: Checkpoint = None,
    form: WhichForm = Form.FINAL,
    gpu: Gpu = False,
    clear_history: Annotated[bool, typer.Option("--clear-history", help="Forget earlier prompts and answers first.")] = False,
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all prompts and answers so far to a text file.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the job's servers; else they end 10 minutes after the last question.")] = False,
    directory: Directory = None,
    image: Image = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Try what a job has trained: ask a prompt, or a sample of its data. Without either, show the samples and what was said so far.

    The first question starts a pod (or with --dir a process) that loads base model and adapter; later ones are answered at once.
    """
    asked = Asked(form, checkpoint, gpu)
    subject = _local(directory, asked) if directory is not None else _on_cluster(name, asked, image, (namespace, kubeconfig, context))
    out, notes = Console(), Console(stderr=True)
    if prompt is not None and sample is not None:
        raise CliError("--prompt and --sample are two questions; ask one at a time")
    if raw and prompt is None:
        raise CliError("--raw says how --prompt is put to the model; there is none")
    if clear_history:
        notes.print(f"{subject.history.clear()} exchanges removed")
    if prompt is not None or sample is not None or resample or not (clear_history or export or stop):
        manner = make_manner(preset, temperature, top_p, max_new_tokens, repetition_penalty)
        conversation = _begin(subject, manner, samples_from, out, notes)
        if resample:
            conversation.resample()
        if prompt is not None:
            conversation.ask_raw(prompt) if raw else conversation.ask_text(prompt, goes_on=False)
        elif sample is not None:
            conversation.ask_sample(sample)
        else:
            conversation.show_samples()
            show_history(subject.history, notes)
    if export is not None:
        notes.print(f"{subject.history.export(export)} exchanges are in {export}", soft_wrap=True)
    if stop:
        ended = subject.stop()
        notes.print(f"{', '.join(ended)} ended" if ended else f"no server of {subject.label} is up", soft_wrap=True)


def chat(  # noqa: PLR0913, PLR0917  # the options of a command
    name: OptionalName = None,
    samples_from: SamplesFrom = None,
    preset: WhichPreset = Preset.BALANCED,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    repetition_penalty: Penalty = REPETITION_PENALTY,
    checkpoint: Checkpoint = None,
    form: WhichForm = Form.FINAL,
    gpu: Gpu = False,
    directory: Directory = None,
    image: Image = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Talk with what a job has trained, line by line; it knows what was said before. Ctrl-D ends the talk, the server ends by itself."""
    asked = Asked(form, checkpoint, gpu)
    subject = _local(directory, asked) if directory is not None else _on_cluster(name, asked, image, (namespace, kubeconfig, context))
    out, notes = Console(), Console(stderr=True)
    manner = make_manner(preset, temperature, top_p, max_new_tokens, repetition_penalty)
    conversation = _begin(subject, manner, samples_from, out, notes)
    show_history(subject.history, notes)
    notes.print(HELP, style="dim")
    try:
        while conversation.obey(notes.input("[bold]> [/bold]")):
            pass
    except (EOFError, KeyboardInterrupt):
        notes.print()


def make_manner(preset: Preset, temperature: float | None, top_p: float | None, max_new_tokens: int, repetition_penalty: float) -> Manner:
    """How answers are made: as the preset says, but where an option says otherwise (V-02, V-05, V-06)."""
    said = {name: value for name, value in (("temperature", temperature), ("top_p", top_p)) if value is not None}
    sampling = Sampling.model_validate({**PRESETS[preset].model_dump(), **said})
    return Manner(sampling, max_new_tokens, repetition_penalty)


def _begin(subject: Subject, manner: Manner, samples_from: str | None, out: Console, notes: Console) -> Conversation:
    """Start the server, or find it, and wait until it has loaded."""
    dataset = subject.dataset(samples_from) if samples_from is not None else None
    server = subject.server()

    def of_dataset(address: str) -> Sequence[Question]:
        assert dataset is not None, "only asked where one is named"
        return samples_of_dataset(address, dataset)

    with telling(notes) as tell:
        server.start()
        health = await_loaded(server, tell)
    notes.print(f"{subject.label}: {health.weights}", style="dim", soft_wrap=True, highlight=False)
    sampling = manner.sampling
    described = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, repetition penalty {manner.repetition_penalty:g}"
    return Conversation(
        server, subject.history, health.weights, manner, described, subject.uid, out, notes, of_dataset if dataset is not None else None
    )


def _on_cluster(name: str | None, asked: Asked, image: str | None, access: tuple[str | None, str | None, str | None]) -> Subject:
    if name is None:
        raise CliError("name a job, or the directory of a local run with --dir")
    from finetune_cli.job_runner import JobRunner
    from finetune_cli.servers import ClusterServer, stop_servers
    from finetune_cli.serving import build_server, check_askable
    from finetune_cli.short_jobs import Surroundings

    cluster, ref = open_target(name, *access)
    job, runner = cluster.job(ref), JobRunner(cluster)

    def serve() -> Server:
        check_askable(job, asked)
        here = Surroundings(image) if image else runner.surroundings(ref.namespace)
        return ClusterServer(cluster, runner, build_server(job, asked, here, cluster.gpu_types() if asked.gpu else ()))

    def dataset(wanted: str) -> dict[str, object]:
        found = {str(each["metadata"]["name"]): each for each in cluster.datasets(ref.namespace)}
        if wanted not in found:
            names = ", ".join(sorted(found)) or "none"
            raise CliError(f"--samples-from {wanted}: namespace {ref.namespace} has no Dataset of this name; it has {names}")
        return found[wanted]

    return Subject(
        str(ref),
        job.uid,
        history_of(ref.namespace, ref.name, job.uid, os.environ),
        serve,
        lambda: stop_servers(runner, job.uid, ref.namespace),
        dataset,
    )


def _local(directory: Path, asked: Asked) -> Subject:
    from finetune_cli.local.directory import LocalDirectory
    from finetune_cli.local.serving import LocalServer, stop_local_servers

    place = LocalDirectory(directory.absolute())
    server = LocalServer(place, asked)
    name = place.read_config(place.last_run).job.name

    def no_dataset(wanted: str) -> dict[str, object]:
        raise CliError(f"--samples-from {wanted}: Datasets are objects of a cluster; a local run has its own samples alone")

    return Subject(
        f"the run in {place.root}",
        place.uid,
        history_of("local", name, place.uid, os.environ),
        lambda: server,
        lambda: stop_local_servers(place),
        no_dataset,
    )
