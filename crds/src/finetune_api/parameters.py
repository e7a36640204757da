"""Parameters of TrainingMethods: texts in a job, judged against what the method declares and read as numbers and flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from finetune_api.models.training_method import Parameter
from finetune_api.problems import Problem, show

ParameterValue = str | bool | int | float
INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
NUMBER = r"^-?(0|[1-9][0-9]{0,17})([.][0-9]{1,18})?([eE][-+]?[0-9]{1,2})?$"
"""As JSON writes them, short enough to be exact and finite."""
FLAGS = {"true": True, "false": False}
_EXPECTED = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
PATH = "spec.methodRef.parameters"


def read_parameters(declared: Sequence[Parameter], written: Mapping[str, str]) -> dict[str, ParameterValue]:
    """Values by name, defaults filled in, as the types say. ``written`` has no :func:`parameter_problems`."""
    texts = {each.name: written.get(each.name, each.default) for each in declared}
    return {each.name: read_text(each, text) for each in declared if (text := texts[each.name]) is not None}


def read_text(parameter: Parameter, text: str) -> ParameterValue:
    """The value of a text that fits."""
    match parameter.type:
        case "boolean":
            return FLAGS[text]
        case "integer":
            return int(text)
        case "number":
            return float(text)
        case "string":
            return text


def problem_of_text(parameter: Parameter, text: str) -> str:
    """What is wrong with the text for this parameter, and the fix; empty if it fits."""
    if parameter.type == "string":
        return _choice_problem(parameter, text)
    fits = text in FLAGS if parameter.type == "boolean" else re.search(INTEGER if parameter.type == "integer" else NUMBER, text)
    if not fits:
        return f"{show(text)} should be {_EXPECTED[parameter.type]}{_range(parameter)}"
    if parameter.type == "boolean":
        return ""
    if parameter.minimum is not None and float(text) < parameter.minimum:
        return f"{text} is below the minimum {parameter.minimum:g}"
    if parameter.maximum is not None and float(text) > parameter.maximum:
        return f"{text} is above the maximum {parameter.maximum:g}"
    return ""


def _choice_problem(parameter: Parameter, text: str) -> str:
    if parameter.choices is None or text in parameter.choices:
        return ""
    close = difflib.get_close_matches(text, parameter.choices, n=1)
    return f"{show(text)} is none of {', '.join(parameter.choices)}" + (f"; did you mean {close[0]}?" if close else "")


def _range(parameter: Parameter) -> str:
    match parameter.minimum, parameter.maximum:
        case None, None:
            return ""
        case low, None:
            return f", at least {low:g}"
        case None, high:
            return f", at most {high:g}"
        case low, high:
            return f" from {low:g} to {high:g}"


def parameter_problems(method: str, declared: Sequence[Parameter], written: Mapping[str, str], fields: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the parameters a job gives to a method; each names the parameter, its value and the fix.

    ``fields``: variables that come from fields of the job (name -> field), for people who write them here.
    """
    known = {each.name: each for each in declared}
    problems = [
        Problem(f"{PATH}.{name}", text, _unknown(method, name, known, fields)) for name, text in written.items() if name not in known
    ]
    for name, each in known.items():
        text = written.get(name)
        if text is None and each.required:
            problems.append(Problem(f"{PATH}.{name}", None, f"is required by TrainingMethod {method}{_purpose(each)}"))
        elif text is not None and (wrong := problem_of_text(each, text)):
            problems.append(Problem(f"{PATH}.{name}", text, f"{wrong}{_purpose(each)}"))
    return problems


def _purpose(parameter: Parameter) -> str:
    return f" ({' '.join(parameter.description.split())})" if parameter.description else ""


def _unknown(method: str, name: str, known: Mapping[str, Parameter], fields: Mapping[str, str]) -> str:
    if name in fields:
        return f"is set by spec.{fields[name]}: write that, and leave it out here"
    close = difflib.get_close_matches(name.upper(), known, n=1)
    if close:
        return f"is no parameter of TrainingMethod {method}; did you mean {close[0]}?"
    return f"is no parameter of TrainingMethod {method}; " + (f"it takes {', '.join(known)}" if known else "it takes none")
