"""Whose things are in a cluster that the user named: the demo's own bear a label, and everything else is left alone."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.constants import GROUP, KIND, PLURAL
from finetune_cli.demo.scene import JOB_NAMESPACE, SYSTEM_NAMESPACE, Scene
from finetune_cli.demo.shell import Shell
from finetune_cli.errors import CliError

DEMO_LABEL = f"{GROUP}/demo"
"""On the namespace, the job and the rows that the demo made in a named cluster; ``true``."""
OPERATORS = "app.kubernetes.io/part-of=finetune,app.kubernetes.io/component=operator"
LOOK_SECONDS = 60


class Owner(enum.Enum):
    """Whose an object of the cluster is."""

    NOBODY = enum.auto()
    """There is none."""
    DEMO = enum.auto()
    OTHERS = enum.auto()


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that the demo makes."""

    kind: str
    name: str
    namespace: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """How kubectl is told of it."""
        return (self.kind.lower(), self.name, *(("--namespace", self.namespace) if self.namespace else ()))

    def __str__(self) -> str:
        """As in a sentence."""
        return f"{self.kind} {self.name}" + (f" in namespace {self.namespace}" if self.namespace else "")


SYSTEM = Thing("Namespace", SYSTEM_NAMESPACE)
"""The release, the operator and the store are in it and are whose it is."""


def job_of(scene: Scene) -> Thing:
    """The demo's job."""
    return Thing(KIND, scene.document.name, JOB_NAMESPACE)


def rows_of(scene: Scene) -> Thing:
    """The ConfigMap with the job's data."""
    return Thing("ConfigMap", scene.config_map[0], JOB_NAMESPACE)


@dataclass(frozen=True, slots=True)
class Owners:
    """Reads a cluster through kubectl; ``kubectl`` are its first words, with the options that name the cluster."""

    shell: Shell
    kubectl: Sequence[str] = ("kubectl",)

    def owner(self, thing: Thing) -> Owner:
        """Whose the object is, if it exists."""
        if thing.kind == KIND and not self._get("customresourcedefinition", f"{PLURAL}.{GROUP}", "--ignore-not-found", "--output", "name"):
            return Owner.NOBODY
        text = self._get(*thing.words, "--ignore-not-found", "--output", "json")
        if not text:
            return Owner.NOBODY
        labels = json.loads(text)["metadata"].get("labels", {})
        return Owner.DEMO if labels.get(DEMO_LABEL) == "true" else Owner.OTHERS

    def refuse_foreign(self, scene: Scene, context: str) -> None:
        """Refuse a cluster in which the demo would change, and later remove, what it did not make.

        Raises:
            CliError: an operator, the namespace, the job or its data is there and was not made by a demo.
        """
        foreign = [str(thing) for thing in (SYSTEM, job_of(scene), rows_of(scene)) if self.owner(thing) is Owner.OTHERS]
        foreign += self._other_operators()
        if foreign:
            raise CliError(
                f"the cluster of context {context} has what the demo would make, and no demo made it: {', '.join(foreign)}",
                advice="The demo changes and later removes only what is its own. Name a cluster without one in KUBE_CONTEXT, or "
                "leave KUBE_CONTEXT out. To use the installation that is there, follow docs/tutorial.md; what nobody needs may be deleted.",
            )

    def _other_operators(self) -> list[str]:
        listed = json.loads(self._get("deployments", "--all-namespaces", "--selector", OPERATORS, "--output", "json"))
        operators = [item["metadata"] for item in listed["items"]]
        return [
            str(Thing("Deployment", found["name"], found["namespace"])) for found in operators if found["namespace"] != SYSTEM_NAMESPACE
        ]

    def _get(self, *words: str) -> str:
        return self.shell.capture(*self.kubectl, "get", *words, timeout_seconds=LOOK_SECONDS).strip()
