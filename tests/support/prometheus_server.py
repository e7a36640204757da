"""A real Prometheus on this machine: scraping pages over HTTP, or over a history written by its own tool."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from finetune_monitoring.prometheus import Prometheus
from tests.support.install import tool_path
from tests.support.platform import eventually

LOOKBACK = "45s"
"""A history has no marks where series ended; this is how long they seem to last."""


@contextmanager
def serve(
    directory: Path, scrapes: Iterable[Mapping[str, Any]] = (), *, interval: str = "15s", rules: Path | None = None
) -> Iterator[Prometheus]:
    """Run a Prometheus over ``directory``/data until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"global": {"scrape_interval": interval, "evaluation_interval": interval}, "scrape_configs": list(scrapes)}
    if rules is not None:
        config["rule_files"] = [str(rules)]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = directory / "log"
    command = [
        str(tool_path("prometheus")), f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}",
        "--web.listen-address=127.0.0.1:0", "--storage.tsdb.retention.time=100y", f"--query.lookback-delta={LOOKBACK}",
    ]  # fmt: skip
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            address = eventually(lambda: _address(log, process), within=60, what="Prometheus listens", every=0.1)
            server = Prometheus(f"http://{address}")
            eventually(lambda: server.instant("vector(1)", 0), within=60, what="Prometheus answers", every=0.1)
            yield server
        finally:
            process.terminate()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str | None:
    text = log.read_text()
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus ended: {text}")
    match = re.search(r'Listening on.*address="?([\d.]+:\d+)', text)
    return match[1] if match and "Server is ready" in text else None


def write_history(directory: Path, snapshots: Iterable[tuple[float, str, Mapping[str, str], bytes]]) -> None:
    """Make the blocks of ``directory``/data from metrics pages: (Unix seconds, scrape job, labels of the target, page)."""
    directory.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for moment, job, labels, page in snapshots:
        target = {"job": job, "instance": f"{job}:9090", **labels}
        for family in text_string_to_metric_families(page.decode()):
            kinds[family.name] = family.type
            lines.setdefault(family.name, []).extend(_lines(family, target, moment))
    file = directory / "history.txt"
    with file.open("w") as output:
        for name, rows in lines.items():
            output.write(f"# TYPE {name} {kinds[name]}\n")
            output.writelines(rows)
        output.write("# EOF\n")
    command = [str(tool_path("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(file), str(directory / "data")]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _lines(family: Metric, target: Mapping[str, str], moment: float) -> Iterator[str]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield _line(sample, target, moment)


def _line(sample: Sample, target: Mapping[str, str], moment: float) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in {**target, **sample.labels}.items())
    return f"{sample.name}{{{labels}}} {sample.value!r} {moment:.3f}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
