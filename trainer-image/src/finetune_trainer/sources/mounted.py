"""``pvc://claim/path`` and ``configmap://name/key``: already mounted, read in place."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.sources.context import Source, SourceContext, source_error


def mounted_path(source: Source, context: SourceContext) -> Path:
    """File or directory of a mounted source. Raises the role's error when it is not there."""
    name, _, rest = source.uri.partition("://")[2].partition("/")
    base = context.pvc_dir if source.scheme == "pvc" else context.configmap_dir
    root = base / name
    path = root / rest
    if ".." in Path(rest).parts:
        raise source_error(source, "the path must not contain '..'.")
    if path.exists():
        return path
    if source.scheme == "configmap":
        keys = _names(root)
        raise source_error(
            source,
            f"ConfigMap {name} has no key {rest}; it has {keys}."
            if keys
            else f"ConfigMap {name} does not exist or is empty in this namespace.",
        )
    if not root.is_dir():
        raise source_error(source, f"claim {name} is not mounted: does the PersistentVolumeClaim exist in this namespace?")
    parent = next(folder for folder in path.parents if folder.is_dir())
    raise source_error(
        source, f"no such file or directory on claim {name}; {parent.relative_to(base)} holds {_names(parent) or 'nothing'}."
    )


def _names(directory: Path) -> str:
    """Names in a directory for a message, bounded; the bookkeeping links of a mounted volume are left out."""
    if not directory.is_dir():
        return ""
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith(".."))
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
