"""``python -m finetune_api generate [--check]``: everything that is written from the models, or whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_api.generate import generated_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated files; 0 when all is well, 1 when a file differs, 2 when this is not the repository."""
    parser = argparse.ArgumentParser(prog="python -m finetune_api")
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="write CRDs, presets and the reference from the models")
    generate.add_argument("--check", action="store_true", help="write nothing; fail where a committed file differs")
    generate.add_argument("--root", type=Path, default=Path(), help="the repository (default: the working directory)")
    options = parser.parse_args(arguments)
    root: Path = options.root
    if not (root / "crds" / "pyproject.toml").is_file():
        print(f"{root.resolve()} is not the repository: run from its root, or name it with --root", file=sys.stderr)
        return 2
    stale = [path for path, text in generated_files().items() if not _is_current(root / path, text)]
    if options.check:
        for path in stale:
            print(f"{path} differs from the models: run `python -m finetune_api generate` and commit it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(generated_files()[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
