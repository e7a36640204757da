"""The judgement of GitOps tools on an object: kstatus and Flux's expressions (cluster/go/gitops), Argo CD's scripts (cluster/go/argocd)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune_cluster.home import Home
from tests.support.fake_api import Manifest

ROOT = Path(__file__).parents[2]


class JudgeError(Exception):
    """The tool could not judge the object; the message is the tool's own."""


class Program(NamedTuple):
    """A program that answers requests, once built."""

    path: Path

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers in the order of the requests, each with ``result`` or ``error``."""
        done = subprocess.run([str(self.path)], input=json.dumps(list(requests)), capture_output=True, text=True, check=True, timeout=60)
        return list(json.loads(done.stdout))

    def one(self, **request: Any) -> Any:
        """The result of one request. Raises :class:`JudgeError`."""
        (answer,) = self.ask([request])
        if "error" in answer:
            raise JudgeError(answer["error"])
        return answer.get("result")


class Judge(NamedTuple):
    """What Flux says."""

    program: Program

    def kstatus(self, manifest: Manifest) -> str:
        """Status by ``kstatus``: Current, InProgress, Failed, Terminating."""
        return str(self.program.one(kind="kstatus", object=manifest)["status"])

    def expressions(self, expressions: Manifest, manifest: Manifest) -> str:
        """Status by Flux's ``healthCheckExprs``. Raises :class:`JudgeError` where an expression cannot be evaluated."""
        return str(self.program.one(kind="expressions", expressions=expressions, object=manifest)["status"])


class ArgoJudge(NamedTuple):
    """What Argo CD makes of scripts, by its own runner of them."""

    program: Program

    def health(self, script: Path, manifest: Manifest) -> dict[str, Any]:
        """Status and message."""
        return dict(self.program.one(kind="health", script=script.read_text(encoding="utf-8"), object=manifest))

    def actions(self, script: Path, manifest: Manifest) -> list[dict[str, Any]]:
        """The actions of an object, those that cannot be chosen now with ``disabled``."""
        return list(self.program.one(kind="discovery", script=script.read_text(encoding="utf-8"), object=manifest) or [])

    def act(self, script: Path, manifest: Manifest) -> Manifest:
        """The object as an action would patch it."""
        (impacted,) = self.program.one(kind="action", script=script.read_text(encoding="utf-8"), object=manifest)
        assert impacted["operation"] == "patch"
        return dict(impacted["resource"])


def find_judge() -> Judge:
    """Flux's judgement; built where it is not there for the present sources."""
    return Judge(_find("gitops", "gitops"))


def find_argo_judge() -> ArgoJudge:
    """Argo CD's, likewise."""
    return ArgoJudge(_find("argocd", "argocd-lua"))


def _find(tool: str, program: str) -> Program:
    subprocess.run([sys.executable, "-m", "finetune_cluster", "tools", tool], check=True, cwd=ROOT)
    return Program(Home.of(os.environ).bin / program)
