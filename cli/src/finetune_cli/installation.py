"""The operator as it is installed in a cluster: its Deployments, and the settings that their containers carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from finetune_api.constants import DEFAULT_STORE_SECRET

OPERATOR: Final = "app.kubernetes.io/name=finetune-operator,app.kubernetes.io/component=operator"
"""Labels of the chart's operator, as a selector."""
_PREFIX: Final = "FINETUNE_OPERATOR_"
"""Begins the variables that are settings."""
Document = Mapping[str, Any]


def settings_of(deployment: Document) -> dict[str, str]:
    """Settings of an operator that have a value in its Deployment, by the name of their variable without its prefix."""
    entries = [entry for container in deployment["spec"]["template"]["spec"]["containers"] for entry in container.get("env") or ()]
    found = {entry["name"]: str(entry["value"]) for entry in entries if entry.get("value")}
    return {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}


def store_secret(deployments: Iterable[Document], namespace: str) -> str:
    """Secret with the store's keys of jobs that name none: as the operator that looks after a namespace says, else the usual one."""
    found = (settings for settings in map(settings_of, deployments) if looks_after(settings, namespace))
    return next((settings["STORAGE_SECRET"] for settings in found if "STORAGE_SECRET" in settings), DEFAULT_STORE_SECRET)


def looks_after(settings: Mapping[str, str], namespace: str) -> bool:
    """Whether an operator of these settings acts in a namespace."""
    watched = settings.get("WATCH_NAMESPACES", "")
    return not watched or namespace in watched.split(",")
