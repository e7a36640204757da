"""Code that lies beside a model (``auto_map`` in its JSON files): which files are named, and that they are the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune_trainer.sources.context import Source, source_error
from finetune_trainer.sources.model_directory import CONFIG, ModelFiles, read_json

TOKENIZER_CONFIG = "tokenizer_config.json"
CONDITION = "ModelCodeRuns"
ELSEWHERE = "--"
"""Stands between a repository and a class in it."""


def code_references(document: object) -> list[str]:
    """The classes a JSON file's ``auto_map`` names: ``modeling_x.XForCausalLM``, or ``org/name--modeling_x.XForCausalLM``."""
    found = document.get("auto_map") if isinstance(document, Mapping) else None
    return list(dict.fromkeys(_texts(found)))


def check_code(source: Source, files: ModelFiles) -> dict[str, str]:
    """Say which code of a trusted model will run, as a warning.

    Raises the source's error for code of another repository, whose contents nothing fixes, and for a file that is missing.
    """
    named: dict[str, str] = {}
    for name in (CONFIG, TOKENIZER_CONFIG):
        for reference in code_references(read_json(source, files, name)) if name in files.sizes else ():
            if ELSEWHERE in reference:
                raise source_error(
                    source,
                    f"{name} names code of another repository ({reference}), which may change at any time; copy its Python files beside "
                    "the weights and name them there.",
                )
            named[f"{reference.rpartition('.')[0].replace('.', '/')}.py"] = name
    for file, name in named.items():
        if file not in files.sizes:
            raise source_error(source, f"{file} is missing, {name} names it.")
    return {CONDITION: f"{source.uri}: its own code runs in the pods: {', '.join(sorted(named))}."} if named else {}


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case _:
            return
