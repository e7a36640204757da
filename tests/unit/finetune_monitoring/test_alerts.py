"""Alerts: valid, firing and silent when they should be (promtool), documented, on metrics that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from finetune_api.contract import metrics
from finetune_monitoring.alerts import RUNBOOKS, Alert, job_alerts, operator_alerts, rule_groups
from finetune_monitoring.documents import documents
from tests.support.install import tool_path
from tests.support.manifests import ROOT

ALERTS = (*operator_alerts(), *job_alerts())
CASES = ROOT / "tests" / "data" / "alerts"
RULES = ROOT / "helm" / "finetune-operator" / "files" / "monitoring" / "rules.yaml"


def promtool(*arguments: str) -> str:
    done = subprocess.run([str(tool_path("promtool")), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rule_file_is_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path, tmp_path: Path) -> None:
    """AB-01, AB-05, F-20."""
    cases = yaml.safe_load(path.read_text())
    file = tmp_path / path.name
    file.write_text(yaml.safe_dump({**cases, "rule_files": [str(RULES)], "evaluation_interval": "1m"}))
    assert "SUCCESS" in promtool("test", "rules", str(file))


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    firing: set[str] = set()
    silent: set[str] = set()
    for path in CASES.glob("*.yaml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (firing if check["exp_alerts"] else silent).add(check["alertname"])
    assert firing == silent == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert(alert: Alert) -> None:
    """A severity, sentences that name the job, a runbook that says what it means and what to do; metrics of the table alone."""
    document = alert.document
    assert document["labels"]["severity"] in ("critical", "warning", "info")
    assert document["annotations"]["runbook_url"] == f"{RUNBOOKS}/{alert.name}.md"
    known = {name for metric in metrics.ALL for name in metrics.series_of(metric)}
    assert set(re.findall(r"\bfinetune_(?!namespace\b|job\b)\w+", alert.expr)) <= known
    if alert in job_alerts():
        assert "{{ $labels.finetune_namespace }}/{{ $labels.finetune_job }}" in alert.summary
    page = (ROOT / "docs" / "runbooks" / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    for heading in ("## Meaning", "## Impact", "## Look", "## Do"):
        assert heading in page, heading


def test_every_runbook_has_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {alert.name for alert in ALERTS}
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    assert {name for name in pages if f"]({name}.md)" in index} == pages


def test_the_chart_ships_what_is_made() -> None:
    assert yaml.safe_load(RULES.read_text()) == rule_groups()
    assert documents()["files/monitoring/rules.yaml"] == RULES.read_text()
