"""The judgement of GitOps tools on an object: kstatus, Flux's health expressions, Argo CD's Lua (cluster/go/gitops)."""

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
PROGRAM = "gitops"


class JudgeError(Exception):
    """The tool could not judge the object; the message is the tool's own."""


class Judge(NamedTuple):
    """The program, once built."""

    program: Path

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers in the order of the requests, each with ``result`` or ``error``."""
        done = subprocess.run([str(self.program)], input=json.dumps(list(requests)), capture_output=True, text=True, check=True, timeout=60)
        return list(json.loads(done.stdout))

    def kstatus(self, manifest: Manifest) -> str:
        """Status by ``kstatus``: Current, InProgress, Failed, Terminating."""
        return str(self._one({"kind": "kstatus", "object": manifest})["status"])

    def expressions(self, expressions: Manifest, manifest: Manifest) -> str:
        """Status by Flux's ``healthCheckExprs``. Raises :class:`JudgeError` where an expression cannot be evaluated."""
        return str(self._one({"kind": "expressions", "expressions": expressions, "object": manifest})["status"])

    def lua(self, script: Path, manifest: Manifest) -> dict[str, Any]:
        """What a script returns for an object."""
        return dict(self._one({"kind": "lua", "script": script.read_text(encoding="utf-8"), "object": manifest}))

    def _one(self, request: dict[str, Any]) -> Any:
        (answer,) = self.ask([request])
        if "error" in answer:
            raise JudgeError(answer["error"])
        return answer["result"]


def find_judge() -> Judge:
    """The program among the cluster's tools; built where it is not there for the present sources."""
    subprocess.run([sys.executable, "-m", "finetune_cluster", "tools", PROGRAM], check=True, cwd=ROOT)
    return Judge(Home.of(os.environ).bin / PROGRAM)
