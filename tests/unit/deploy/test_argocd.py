"""Health and actions for Argo CD: its own test files, and every phase there is (design §3: waves do not hang, hooks wait for the end)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.lifecycle import PHASES, Health
from finetune_api.models.status import Phase
from tests.support.fake_api import Manifest, merge
from tests.support.gitops import ArgoJudge
from tests.support.phases import with_annotations, written

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "argocd"
CUSTOMIZATION = DEPLOY / "finetune.dev" / "FineTuneJob"
ACTIONS = CUSTOMIZATION / "actions"
HEALTH = {Health.CURRENT: "Healthy", Health.IN_PROGRESS: "Progressing", Health.FAILED: "Degraded"}
HOOKS = ({"argocd.argoproj.io/hook": "PostSync"}, {"helm.sh/hook": "post-install"})
AS_HOOK = {Phase.SUCCEEDED: "Healthy", Phase.CANCELLED: "Degraded", Phase.PAUSED: "Suspended", Phase.STOPPED: "Suspended"}
"""What differs for a hook; all phases that are not failed are Progressing."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def cases(path: Path, key: str) -> list[Mapping[str, Any]]:
    """Tests of a file in Argo CD's format."""
    return list(read(path)[key])


def health(argo: ArgoJudge, manifest: Manifest) -> str:
    return str(argo.health(CUSTOMIZATION / "health.lua", manifest)["status"])


def enabled(argo: ArgoJudge, manifest: Manifest) -> set[str]:
    """Actions Argo CD offers."""
    return {action["name"] for action in argo.actions(ACTIONS / "discovery.lua", manifest) if not action.get("disabled")}


def act(argo: ArgoJudge, action: str, manifest: Manifest) -> Manifest:
    return argo.act(ACTIONS / action / "action.lua", manifest)


@pytest.mark.parametrize("case", cases(CUSTOMIZATION / "health_test.yaml", "tests"), ids=lambda case: Path(case["inputPath"]).stem)
def test_health_as_argo_tests_it(argo: ArgoJudge, case: Mapping[str, Any]) -> None:
    """health_test.yaml, the format of `go test ./util/lua` in Argo CD."""
    assert argo.health(CUSTOMIZATION / "health.lua", read(CUSTOMIZATION / case["inputPath"])) == case["healthStatus"]


@pytest.mark.parametrize("case", cases(ACTIONS / "action_test.yaml", "discoveryTests"), ids=lambda case: Path(case["inputPath"]).stem)
def test_discovery_as_argo_tests_it(argo: ArgoJudge, case: Mapping[str, Any]) -> None:
    found = argo.actions(ACTIONS / "discovery.lua", read(ACTIONS / case["inputPath"]))
    whole = [{"disabled": False, **action} for action in found]  # Argo CD leaves out what is false
    assert sorted(whole, key=lambda action: str(action["name"])) == case["result"]


@pytest.mark.parametrize("case", cases(ACTIONS / "action_test.yaml", "actionTests"), ids=lambda case: Path(case["expectedOutputPath"]).stem)
def test_actions_as_argo_tests_them(argo: ArgoJudge, case: Mapping[str, Any]) -> None:
    after = act(argo, case["action"], read(ACTIONS / case["inputPath"]))
    assert {key: after[key] for key in ("metadata", "spec")} == {
        key: value for key, value in read(ACTIONS / case["expectedOutputPath"]).items() if key in ("metadata", "spec")
    }


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_the_health_of_the_table(argo: ArgoJudge, phase: Phase) -> None:
    """A sync goes on unless the operator itself acts; only what a user must mend is Degraded."""
    assert health(argo, written(phase)) == HEALTH[PHASES[phase].health]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: next(iter(hook)))
@pytest.mark.parametrize("phase", Phase)
def test_a_hook_waits_for_the_end(argo: ArgoJudge, phase: Phase, hook: Mapping[str, str]) -> None:
    """Job semantics: nothing but the end is Healthy, a cancelled hook has failed, a paused one is Suspended (which a sync waits for)."""
    expected = "Degraded" if PHASES[phase].health is Health.FAILED else AS_HOOK.get(phase, "Progressing")
    assert health(argo, with_annotations(written(phase), hook)) == expected


def test_a_job_as_it_lives(argo: ArgoJudge, jobs: Mapping[str, Manifest]) -> None:
    """The recorded jobs are judged as those the present operator makes."""
    recorded = {path.stem: health(argo, read(path)) for path in (CUSTOMIZATION / "testdata").glob("*.yaml")}
    recorded = {name: status for name, status in recorded.items() if not name.startswith("hook-")}
    assert {name: health(argo, manifest) for name, manifest in jobs.items()} == recorded


def test_health_says_why_and_not_how_far(argo: ArgoJudge, jobs: Mapping[str, Manifest]) -> None:
    """Progress in the message would make Argo CD refresh the application at each of its writes."""
    answer = argo.health(CUSTOMIZATION / "health.lua", jobs["failed"])
    assert answer["message"] == "Failed: Row 3 has no messages."
    further = merge(jobs["training"], {"status": {"progress": {"step": 99, "loss": 0.5}}})
    assert argo.health(CUSTOMIZATION / "health.lua", further) == argo.health(CUSTOMIZATION / "health.lua", jobs["training"])


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("training", {"pause", "stop", "checkpoint-now"}),
        ("queued", {"pause", "stop"}),
        ("paused", {"resume", "stop"}),
        ("scaled-to-zero", {"resume", "stop"}),
        ("stopped", {"resume"}),
        ("failed", {"retry"}),
        ("cancelled", set()),
        ("succeeded", set()),
    ],
)
def test_only_actions_that_do_something_are_offered(argo: ArgoJudge, jobs: Mapping[str, Manifest], state: str, offered: set[str]) -> None:
    assert enabled(argo, jobs[state]) == offered


def test_resume_takes_back_every_kind_of_pause(argo: ArgoJudge, jobs: Mapping[str, Manifest]) -> None:
    """Also one by `kubectl scale` (to the size before it) and one by a budget (by a request)."""
    assert act(argo, "resume", jobs["paused"])["spec"]["suspend"] is False
    scaled = merge(jobs["scaled-to-zero"], {"status": {"lastReplicas": 4}})
    assert act(argo, "resume", scaled)["spec"]["replicas"] == 4
    assert act(argo, "resume", jobs["stopped"])["spec"]["desiredState"] == "Running"
    by_budget = merge(jobs["paused"], {"spec": {"suspend": False}})
    assert "resume" in enabled(argo, by_budget)
    version = by_budget["metadata"]["resourceVersion"]
    assert act(argo, "resume", by_budget)["metadata"]["annotations"] == {"finetune.dev/request": f"resume/{version}"}


def test_two_requests_are_two_requests(argo: ArgoJudge, jobs: Mapping[str, Manifest]) -> None:
    """A token acts once: each request has another one."""
    first = act(argo, "checkpoint-now", jobs["training"])
    second = act(argo, "checkpoint-now", merge(first, {"metadata": {"resourceVersion": "999999"}}))
    assert first["metadata"]["annotations"] != second["metadata"]["annotations"]


def test_the_patch_is_made_from_the_lua_files() -> None:
    subprocess.run([sys.executable, DEPLOY / "render.py", "--check"], check=True)
    data = read(DEPLOY / "argocd-cm-patch.yaml")["data"]
    actions = yaml.safe_load(data["resource.customizations.actions.finetune.dev_FineTuneJob"])
    assert [definition["name"] for definition in actions["definitions"]] == ["checkpoint-now", "pause", "resume", "retry", "stop"]
    assert data["resource.customizations.health.finetune.dev_FineTuneJob"] == (CUSTOMIZATION / "health.lua").read_text(encoding="utf-8")


def test_the_example_application_respects_scaling_and_pausing() -> None:
    """Self-heal must not take back `kubectl scale`, `kubectl finetune pause` or an action."""
    spec = read(DEPLOY / "application.yaml")["spec"]
    (ignored,) = spec["ignoreDifferences"]
    assert (ignored["group"], ignored["kind"]) == ("finetune.dev", "FineTuneJob")
    assert ignored["jsonPointers"] == ["/spec/replicas", "/spec/suspend", "/spec/desiredState", "/metadata/generation"]
    assert {"RespectIgnoreDifferences=true", "ServerSideApply=true"} <= set(spec["syncPolicy"]["syncOptions"])
