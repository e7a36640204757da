"""What a job's pods print: of pods that are there through kubectl, of ended attempts from the archive in the job's store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator

from finetune_api.constants import LABEL_RUN
from finetune_api.contract.env import TRAINER_CONTAINER
from finetune_api.contract.store import LOG_PREFIX, parse_log_key
from finetune_cli.access import Access
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.store import Store

MOST_PODS = 64
"""That are followed at once; no job has more."""


def is_live(job: Job, attempt: int | None) -> bool:
    """Whether pods of the attempt are there now; without a number, of any."""
    now = job.status.attempts[-1].attempt if job.status.attempts else None
    return job.status.replicas > 0 and attempt in (None, now)


def live_lines(job: Job, access: Access, *, follow: bool) -> Iterator[str]:
    """Lines of the pods of the present run; ``follow``: also those to come, until the pods end.

    Raises:
        CliError: kubectl is missing, or cannot read them; the message has what it said.
    """
    selector = f"{job.status.selector},{LABEL_RUN}={job.status.run}"
    command = ["kubectl", *access.kubectl_flags(), "logs", "--namespace", job.ref.namespace, f"--selector={selector}"]
    command += [f"--container={TRAINER_CONTAINER}", "--tail=-1", f"--max-log-requests={MOST_PODS}", *(["--follow"] if follow else [])]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    except FileNotFoundError as error:
        raise CliError("kubectl is not installed or not on PATH") from error
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield from (_plain(line.rstrip("\n")) for line in process.stdout)
            said = process.stderr.read().strip()
            if process.wait():
                raise CliError(f"the logs of {job.ref} cannot be read: {said}")
        finally:
            process.terminate()


def archived_lines(store: Store, attempt: int | None) -> Iterator[str]:
    """Lines of an attempt, pod after pod; without a number, of the last one in the archive.

    Raises:
        CliError: it is not there; the message says which are.
    """
    keys = {number: file.key for file in store.files(LOG_PREFIX) if (number := parse_log_key(file.key)) is not None}
    attempts = sorted({of for of, _ in keys})
    chosen = attempt if attempt is not None else max(attempts, default=None)
    if chosen not in attempts:
        there = f"it has attempts {', '.join(map(str, attempts))}" if attempts else "it has none"
        raise CliError(
            f"{store.uri}/{LOG_PREFIX} has no log{f' of attempt {attempt}' if attempt is not None else ''}; {there}",
            advice="Logs are archived with each checkpoint and at the end of an attempt.",
        )
    for number in sorted(number for number in keys if number[0] == chosen):
        yield from store.read(keys[number]).decode(errors="replace").splitlines()


def of_rank(lines: Iterable[str], rank: int) -> Iterator[str]:
    """The lines of one rank."""
    return (line for line in lines if line.startswith(f"[rank {rank}] "))


def _plain(line: str) -> str:
    """A line of a pod as the archive has it: who said it, and what. Programs of a TrainingMethod print lines of any form."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "message" not in entry:
        return line
    who = f"rank {entry['rank']}" if "rank" in entry else "supervisor"
    return "\n".join([f"[{who}] {entry['message']}", *([entry["exception"]] if "exception" in entry else [])])
