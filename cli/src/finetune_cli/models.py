"""The catalogue of BaseModels, as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from finetune_api.catalogue import ineligible
from finetune_api.constants import BASE_MODEL_KIND
from finetune_cli.terminal import list_table

GIB: Final = 2**30
WAYS: Final = {"bfloat16": "16 bits", "fourBit": "4 bits"}
"""Field of ``bytesPerParameter`` -> how the weights are held."""
UNKNOWN: Final = "?"


def render_models(models: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each BaseModel, by name."""
    table = list_table()
    for column in ("NAME", "TYPE", "PARAMETERS", "BYTES PER PARAMETER", "CONTEXT", "ELIGIBLE", "DEPLOYED"):
        table.add_column(column, no_wrap=True)
    table.add_column("URI", overflow="fold")
    for model in sorted(models, key=lambda each: str(each["metadata"]["name"])):
        spec = model["spec"]
        table.add_row(
            model["metadata"]["name"],
            spec["type"],
            format_parameters(spec.get("parameters")),
            ", ".join(f"{each:g} in {way}" for way, each in _held(spec).items()) or UNKNOWN,
            f"{spec['contextLength']:,}" if "contextLength" in spec else UNKNOWN,
            *(_answer(held=bool(spec.get(name, True))) for name in ("eligible", "deployed")),
            spec["uri"],
        )
    return table


def may_be_trained(model: Mapping[str, Any]) -> bool:
    """Whether jobs may begin to train a BaseModel: it is eligible and deployed (C-03)."""
    return ineligible(str(model["metadata"]["name"]), model["spec"]) is None


def _answer(*, held: bool) -> Text:
    return Text("yes" if held else "no", style="" if held else "yellow")


def summarise_model(name: str, spec: Mapping[str, Any]) -> str:
    """Parameters and GPU memory of a BaseModel's weights, as far as they are known (C-04)."""
    parameters = spec.get("parameters")
    weights = [_weights(each, way, parameters) for way, each in _held(spec).items()]
    parts = [f"{parameters:,} parameters" if parameters is not None else "number of parameters not known"]
    parts.append(f"GPU memory of its weights: {', '.join(weights)}" if weights else "GPU memory per parameter not known")
    if "contextLength" in spec:
        parts.append(f"context of {spec['contextLength']:,} tokens")
    return f"{BASE_MODEL_KIND} {name}: {'; '.join(parts)}"


def format_parameters(parameters: int | None) -> str:
    """``8.03 B``, ``494 M``: as models are called."""
    if parameters is None:
        return UNKNOWN
    return f"{parameters / 1e9:.2f} B" if parameters >= 10**9 else f"{parameters / 1e6:.0f} M"


def _held(spec: Mapping[str, Any]) -> dict[str, float]:
    """Ways to hold the weights -> bytes per parameter, for those that are known."""
    known = spec.get("bytesPerParameter") or {}
    return {way: float(known[field]) for field, way in WAYS.items() if field in known}


def _weights(each: float, way: str, parameters: int | None) -> str:
    total = f" ({each * parameters / GIB:.1f} GiB)" if parameters is not None else ""
    return f"{each:g} bytes per parameter in {way}{total}"
