#!/usr/bin/env python3
"""Copy into the chart what is made elsewhere.

CRDs, presets, base models and GPU types come from ``crds/``, the tiny model of the Helm test from ``examples/``, dashboards and alerts from
``monitoring/``.

A CRD becomes a template, because files in a chart's ``crds/`` folder are never upgraded::

    uv run python helm/sync.py          write the copies
    uv run python helm/sync.py --check  name those that differ; exit code 1 if any does
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from finetune_monitoring.documents import FOLDER, documents

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "helm" / "finetune-operator"
GENERATED: Final = "{{- /* Made by helm/sync.py from %s: edit that, not this. */}}\n"
COPIED: Final = "# Copied by helm/sync.py from %s, where it is checked: edit that, not this.\n# ruff: noqa: INP001\n"

CRD_TEMPLATE: Final = """\
{{- if .Values.crds.install }}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %(name)s
  labels:
    {{- include "finetune-operator.labels" (dict "root" . "component" "crds") | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    {{- include "finetune-operator.keep" . | nindent 4 }}
  {{- end }}
%(body)s\
{{- end }}
"""

SHIPPED_TEMPLATE: Final = """\
{{- if .Values.%(value)s.install }}
apiVersion: %(api_version)s
kind: %(kind)s
metadata:
  name: %(name)s
  labels:
    {{- include "finetune-operator.labels" (dict "root" . "component" "%(component)s") | nindent 4 }}
  annotations:
    {{- include "finetune-operator.shippedAnnotations" (dict "root" . "kind" "%(kind)s") | nindent 4 }}
%(annotations)s%(body)s%(price)s\
{{- end }}
"""

PRICE_TEMPLATE: Final = """\
{{- if hasKey .Values.gpuTypes.hourlyRates "%(name)s" }}
  hourlyRate: {{ index .Values.gpuTypes.hourlyRates "%(name)s" | toString | quote }}
  currency: {{ .Values.gpuTypes.currency }}
{{- end }}
"""
"""End of the spec of a GpuType: what it costs is the installation's to say."""

SHIPPED: Final = {"presets": "presets", "basemodels": "baseModels", "gputypes": "gpuTypes"}
"""Folder of objects below ``crds/`` and ``templates/`` -> value of the chart whose ``install`` switches them."""


def escaped(text: str) -> str:
    """Text that a Helm template renders as it stands."""
    return text.replace("{{", '{{ "{{" }}')


def dumped(value: Mapping[str, Any], indent: int = 0) -> str:
    """YAML of a mapping, indented, safe inside a template."""
    text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=160)
    return escaped("".join(f"{' ' * indent}{line}\n" for line in text.splitlines()))


def crd_template(crd: Mapping[str, Any]) -> str:
    """Template of a CustomResourceDefinition with the chart's labels and the choice to keep it."""
    return CRD_TEMPLATE % {"name": crd["metadata"]["name"], "body": dumped({"spec": crd["spec"]})}


def shipped_template(shipped: Mapping[str, Any], folder: str) -> str:
    """Template of an object of ours with the chart's labels; its own annotations stay."""
    annotations, name = shipped["metadata"].get("annotations", {}), shipped["metadata"]["name"]
    return SHIPPED_TEMPLATE % {
        "value": SHIPPED[folder],
        "component": folder,
        "api_version": shipped["apiVersion"],
        "kind": shipped["kind"],
        "name": name,
        "annotations": dumped(annotations, 4) if annotations else "",
        "body": dumped({"spec": shipped["spec"]}),
        "price": PRICE_TEMPLATE % {"name": name} if folder == "gputypes" else "",
    }


def copies(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield each generated file of the chart: its path in the chart, and its text."""
    for source in sorted((root / "crds").glob("*.yaml")):
        crd = yaml.safe_load(source.read_text(encoding="utf-8"))
        yield f"templates/crds/{source.name}", GENERATED % f"crds/{source.name}" + crd_template(crd)
    for folder in SHIPPED:
        for source in sorted((root / "crds" / folder).glob("*.yaml")):
            shipped = yaml.safe_load(source.read_text(encoding="utf-8"))
            yield f"templates/{folder}/{source.name}", GENERATED % f"crds/{folder}/{source.name}" + shipped_template(shipped, folder)
    tiny_model = (root / "examples" / "tiny_model.py").read_text(encoding="utf-8")
    yield "files/test/tiny_model.py", COPIED % "examples/tiny_model.py" + tiny_model
    yield from documents().items()


def differences(chart: Path = CHART, root: Path = ROOT) -> list[str]:
    """Paths in the chart that are missing, stale, or have lost their source."""
    wanted = dict(copies(root))
    folders = ("templates/crds", *(f"templates/{folder}" for folder in SHIPPED), FOLDER, f"{FOLDER}/dashboards")
    present = {f"{folder}/{file.name}" for folder in folders for file in (chart / folder).glob("*.*")}
    stale = {path for path, text in wanted.items() if not (chart / path).exists() or (chart / path).read_text(encoding="utf-8") != text}
    return sorted(stale | (present - wanted.keys()))


def write(chart: Path = CHART, root: Path = ROOT) -> None:
    """Make the copies equal to their sources."""
    wanted = dict(copies(root))
    for path in differences(chart, root):
        target = chart / path
        if path in wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(wanted[path], encoding="utf-8")
        else:
            target.unlink()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a copy differs from its source")
    if not parser.parse_args().check:
        write()
        return 0
    stale = differences()
    for path in stale:
        sys.stderr.write(f"helm/finetune-operator/{path} differs from its source: run `uv run python helm/sync.py`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
