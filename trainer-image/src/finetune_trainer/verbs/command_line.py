"""The verbs and their arguments. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from finetune_trainer.supervisor.signals import StopSignals

PROCESS_VERBS = {
    "worker": "finetune_trainer.worker",
    "prepare": "finetune_trainer.prepare",
    "outputs": "finetune_trainer.outputs",
    "serve": "finetune_trainer.serving",
}
"""Verbs that are programs of their own: started by the supervisor or another verb, or in need of torch themselves."""


@dataclass(frozen=True)
class Verb:
    """A parsed command line."""

    name: str
    flags: frozenset[str] = frozenset()
    older_than: timedelta | None = None

    @property
    def program(self) -> str | None:
        """Module of a verb that is a program of its own."""
        return PROCESS_VERBS.get(self.name)


def parse(arguments: Sequence[str]) -> Verb:
    """Parse a command line; leaves with 2 and the usage for one that is none."""
    parsed = vars(build_parser().parse_args(arguments))
    name, older_than = parsed.pop("name"), parsed.pop("older_than", None)
    return Verb(name, frozenset(flag for flag, is_set in parsed.items() if is_set), older_than)


def parse_age(text: str) -> timedelta:
    """Read ``30d``, ``12h`` or ``90m``. Raises argparse.ArgumentTypeError for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([dhm])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number with d, h or m, for example 30d")
    return timedelta(**{{"d": "days", "h": "hours", "m": "minutes"}[match[2]]: int(match[1])})


def run(verb: Verb, signals: StopSignals) -> int:
    """Run a verb in this process; returns the exit code."""
    from finetune_trainer.supervisor.environment import pod_environment
    from finetune_trainer.surroundings import raise_limits, trust_ca_bundle

    trust_ca_bundle(os.environ)
    raise_limits()
    environment = pod_environment(os.environ)
    match verb.name:
        case "train":
            from finetune_trainer.supervisor.train import run_train

            return run_train(signals, environment, os.environ)
        case "preflight":
            from finetune_trainer.verbs.preflight import run_preflight

            return run_preflight(environment)
        case "look":
            from finetune_trainer.verbs.look import run_look

            return run_look(environment)
        case "pull":
            from finetune_trainer.verbs.pull import run_pull

            return run_pull(environment)
        case "publish":
            from finetune_trainer.verbs.publish import run_publish

            return run_publish(environment)
        case "inspect":
            from finetune_trainer.verbs.inspect import run_inspect

            return run_inspect(environment, deep="deep" in verb.flags)
        case "export":
            from finetune_trainer.verbs.export import run_export

            return run_export(environment)
        case _:
            from finetune_trainer.verbs.cleanup import run_cleanup

            return run_cleanup(environment, dry_run="dry_run" in verb.flags, older_than=verb.older_than)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="finetune-trainer", description="Fine-tunes a language model as a run config says.")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="verb")
    verbs.add_parser("train", help="run one attempt of one pod (what a trainer pod runs)")
    verbs.add_parser("worker", help="one training rank (started by train)")
    verbs.add_parser("prepare", help="raw rows in, rows ready for training out (started by train)")
    verbs.add_parser("preflight", help="check data, secrets, bucket and model headers without a GPU")
    verbs.add_parser("look", help="look at the data of a Dataset: format, rows, columns, samples")
    verbs.add_parser("pull", help="bring a model of a hub into a store")
    verbs.add_parser("publish", help="put the data of a Dataset on a hub")
    inspect = verbs.add_parser("inspect", help="list and verify what the store holds of a job")
    inspect.add_argument("--deep", action="store_true", help="also read the checkpoint to resume from and compare its digests")
    verbs.add_parser("export", help="make merged model, GGUF files and a push of the final weights")
    verbs.add_parser("outputs", help="one step of an export (started by export)")
    verbs.add_parser("serve", help="load what was trained and answer questions over HTTP until nobody asks any more")
    cleanup = verbs.add_parser("cleanup", help="delete everything the job wrote to its store")
    cleanup.add_argument(
        "--older-than", type=parse_age, metavar="AGE", help="only what was last written longer ago, for example 30d; checkpoints go whole"
    )
    cleanup.add_argument("--dry-run", action="store_true", help="only count")
    return parser


def run_program(module: str) -> int:
    """Run a package's ``__main__`` and return its exit code; it handles signals itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0
