"""Where a local run finds model and data: addresses of the manifest that only a cluster has are mapped to paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api.models.spec import FineTuneJobSpec
from finetune_cli.errors import CliError

SOURCE_FIELDS: Final = (
    *("model.uri", "model.tokenizer.uri", "dataset.uri", "dataset.evalUri", "adapter.peftConfig", "adapter.attach.uri"),
    *("dpo.referenceModel", "kto.referenceModel", "grpo.referenceModel", "grpo.rewardModel"),
)
"""Fields of the spec that name something to read."""
CLAIM: Final = "local"
"""Mapped sources appear to the trainer below ``pvc://local``."""
IN_CLUSTER: Final = ("pvc://", "configmap://")


@dataclass(frozen=True, slots=True)
class SourceMap:
    """An address, and the file or directory that stands for it here."""

    uri: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> SourceMap:
        """Read ``URI=PATH``.

        Raises:
            CliError: it is not of this form, or there is nothing at the path.
        """
        uri, found, path = text.partition("=")
        if not found or "://" not in uri or not path:
            raise CliError(f"--map {text}: write URI=PATH, for example s3://bucket/models/tiny=./tiny")
        if not Path(path).exists():
            raise CliError(f"--map {text}: there is nothing at {path}")
        return cls(uri.rstrip("/"), Path(path).absolute())

    def rest_of(self, uri: str) -> str | None:
        """What of an address comes after this one: empty for itself, ``/...`` below it, None elsewhere."""
        rest = uri.rstrip("/").removeprefix(self.uri)
        return rest if uri.startswith(self.uri) and (not rest or rest.startswith("/")) else None


def map_sources(spec: FineTuneJobSpec, maps: Sequence[SourceMap]) -> tuple[FineTuneJobSpec, dict[str, Path]]:
    """Put local paths in place of mapped addresses.

    Returns:
        The spec, and the links to make below the directory that stands for all claims: relative path -> target.

    Raises:
        CliError: an address that exists only in a cluster is not mapped, or a map fits no address.
    """
    tree = spec.model_dump(by_alias=True, mode="json", exclude_none=True)
    links: dict[str, Path] = {}
    used: set[SourceMap] = set()
    for field, parent, key in _addresses(tree):
        uri = parent[key]
        chosen = max((found for found in maps if found.rest_of(uri) is not None), key=lambda found: len(found.uri), default=None)
        if chosen is None:
            if uri.startswith(IN_CLUSTER):
                raise CliError(
                    f"spec.{field} is {uri}, which exists only in a cluster", advice=f"Say what stands for it here: --map {uri}=PATH"
                )
            continue
        used.add(chosen)
        link = f"{CLAIM}/{maps.index(chosen)}/{chosen.path.name}"
        links[link] = chosen.path
        parent[key] = f"pvc://{link}{chosen.rest_of(uri)}"
    for found in maps:
        if found not in used:
            raise CliError(f"--map {found.uri}: no source of the job has this address")
    return FineTuneJobSpec.model_validate(tree), links


def make_links(directory: Path, links: dict[str, Path]) -> None:
    """Create or correct the links of :func:`map_sources` below a directory."""
    for relative, target in links.items():
        link = directory / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _addresses(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(field, what holds it, key) of every address that is written."""
    for path in SOURCE_FIELDS:
        *parents, key = path.split(".")
        node = tree
        for name in parents:
            node = node.get(name, {})
        if key in node:
            yield path, node, key
    for index, part in enumerate(tree["dataset"].get("additional", ())):
        yield f"dataset.additional[{index}].uri", part, "uri"
    for index, entry in enumerate(tree.get("grpo", {}).get("rewardFunctions", ())):
        if "source" in entry:
            yield f"grpo.rewardFunctions[{index}].source", entry, "source"
