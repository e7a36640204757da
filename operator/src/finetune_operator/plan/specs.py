"""From what the user wrote to a spec that can be run, or a sentence why it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import ValidationError

from finetune_api.advice import WITHOUT_EFFECT, warnings_for
from finetune_api.auto import is_auto, tune
from finetune_api.catalogue import gpu_type_problems
from finetune_api.constants import METHOD_KIND
from finetune_api.contract.custom import method_problems
from finetune_api.contract.run_config import ChosenDataset, ChosenGpuType, ChosenModel, CustomMethod
from finetune_api.datasets import rows_of
from finetune_api.defaults import SCHEMA
from finetune_api.models.dataset import DatasetStatus
from finetune_api.models.partial import validate_job, validate_method, validate_preset
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.status import Resolved
from finetune_api.models.training_method import TrainingMethodSpec
from finetune_api.problems import SpecError
from finetune_api.resolve import (
    DATASET_FIELDS,
    DATASET_URI,
    MODEL_URI,
    Resolution,
    Source,
    chosen_dataset,
    chosen_gpu_type,
    chosen_method,
    chosen_model,
    flatten,
    identity,
    resolve,
    unflatten,
    without,
)
from finetune_api.rules import check_resolved
from finetune_operator.plan.base_models import trusted_now, usable_base_model
from finetune_operator.plan.chosen_datasets import usable_dataset
from finetune_operator.plan.custom import resume_warning
from finetune_operator.plan.gpu_types import currency_refusal, usable_gpu_type
from finetune_operator.plan.model_code import code_refusal
from finetune_operator.plan.observed import Found, JobObject, LastRun, Observed
from finetune_operator.plan.run_config import NOTHING, Chosen
from finetune_operator.plan.topology import GRAD_ACCUM, fit_global_batch
from finetune_operator.plan.unavailable import UnavailableError, manifest_of, valid_spec
from finetune_operator.settings import PlanSettings

Named = TypeVar("Named", CustomMethod, ChosenModel, ChosenDataset, ChosenGpuType)
MAX_RESOLVED = 96
MAX_VALUE = 256


class Accepted(NamedTuple):
    """A spec that can be run."""

    spec: FineTuneJobSpec
    """Resolved, with the accumulation steps that keep the global batch."""
    resolved: dict[str, Resolved]
    """What the job did not write itself."""
    asked_grad_accum_steps: int | None
    """The accumulation steps as asked for, where others are used."""
    warnings: dict[str, str]
    """Condition type -> message: values outside what is recommended, settings without effect, a method that cannot resume."""
    chosen: Chosen = NOTHING
    """What it names, as the job's first run found it."""

    @property
    def method(self) -> str | None:
        """The built-in method, or the name of the TrainingMethod."""
        return self.chosen.custom.name if self.chosen.custom is not None else self.spec.method


class Refused(NamedTuple):
    """A spec that cannot be run."""

    reason: str
    message: str


def judge_spec(observed: Observed, settings: PlanSettings) -> Accepted | Refused:
    """Resolve and check the job's spec against what it names, the administrator's word and, once it has run, the run that exists."""
    job, last = observed.job, observed.last_run
    try:
        validate_job(job.spec, has_run=last is not None)
        base = _frozen(job, _usable_preset(observed), last)
        custom = _usable_method(observed, chosen_method(base.job, base.preset))
        name = chosen_model(base.job, base.preset)
        entry = usable_base_model(observed.base_model, name) if name is not None else None
        wanted = chosen_dataset(base.job, base.preset)
        source = usable_dataset(observed.dataset, wanted) if wanted is not None else None
        gpu_type = _usable_gpu_type(observed, chosen_gpu_type(base.job, base.preset))
        resolution = _resolve(base, custom, entry, source, gpu_type)
        if last is None and observed.preset is not None and is_auto(observed.preset.kind, _preset_name(job.spec)):
            tuning = tune(resolution, _rows_found(resolution.spec, observed.dataset))
            resolution = _resolve(base._replace(preset=tuning.over(base.preset)), custom, entry, source, gpu_type)
            resolution = resolution._replace(reasons=tuning.reasons, notes=tuning.notes)
    except UnavailableError as error:
        return Refused(error.reason, str(error))
    except SpecError as error:
        return Refused("Invalid", "; ".join(map(str, error.problems)))
    except ValidationError as error:
        return Refused("Invalid", "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)))
    of_method = method_problems(custom, resolution.spec) if custom is not None else []
    of_gpus = gpu_type_problems(gpu_type.name, gpu_type.spec, resolution.spec) if gpu_type is not None else []
    if problems := [*check_resolved(resolution, has_run=last is not None), *of_method, *of_gpus]:
        return Refused("Invalid", "; ".join(map(str, problems)))
    chosen, dataset = base.model, base.dataset
    if name is not None and entry is not None:
        chosen = ChosenModel(name=name, sets=resolution.set_by("model"), trusts_code=bool(entry.get("trustRemoteCode")))
    if wanted is not None:
        dataset = ChosenDataset(name=wanted, sets=resolution.set_by("dataset"))
    if refusal := code_refusal(resolution.spec, settings.trusted_model_code, trusted_now(chosen, observed)):
        return Refused("RemoteCodeNotAllowed", refusal)
    if refusal := currency_refusal(gpu_type, job.status.usage):
        return Refused("EditRefused", refusal)
    return _against_last_run(resolution, last, Chosen(custom, chosen, dataset, gpu_type))


def _is_bound(job: JobObject, last: LastRun | None) -> bool:
    """Whether the job has run with the preset it names: then that preset's later fate does not matter to it."""
    if last is None:
        return False
    before = last.config.spec.preset_ref
    return _preset_name(job.spec) == (before.name if before is not None else None)


def _usable_preset(observed: Observed) -> Mapping[str, Any]:
    """What the preset sets. Raises :class:`SpecError` when it is not valid, unless the job has run with it already."""
    preset = observed.preset
    bound = _is_bound(observed.job, observed.last_run)
    if preset is None or (preset.spec is None and bound):
        return {}
    if preset.spec is None:
        raise UnavailableError("PresetUnavailable", preset.problem)
    try:
        validate_preset(preset.spec)
    except SpecError:
        if not bound:
            raise
        return {}
    return preset.spec


def _usable_method(observed: Observed, name: str | None) -> CustomMethod | None:
    """The TrainingMethod of a name: as the job has run with it, else as it is now. Raises :class:`SpecError` when it is not valid."""
    if name is None:
        return None
    last, where = observed.last_run, "spec.methodRef.name"
    if last is not None and (custom := _kept(last.config.custom, name)) is not None:
        return custom
    manifest = manifest_of(
        observed.method,
        name,
        "MethodUnavailable",
        missing=f"{where}: there is no {METHOD_KIND} named {name}; choose one of kubectl get trainingmethods",
        unreadable=(
            f"{where}: {name} cannot be looked up, for this installation may not read {METHOD_KIND}s;"
            " its administrator sets rbac.clusterReads, or write method"
        ),
    )
    spec = valid_spec(manifest, validate_method, METHOD_KIND, where)
    return CustomMethod(name=name, spec=TrainingMethodSpec.model_validate({k: v for k, v in spec.items() if v is not None}))


def _rows_found(spec: FineTuneJobSpec, dataset: Found | None) -> int | None:
    """Rows of the Dataset a job names, as far as they are known."""
    found = (dataset.manifest or {}).get("status") if dataset is not None else None
    return rows_of(spec, DatasetStatus.model_validate(found)) if found else None


def _usable_gpu_type(observed: Observed, name: str | None) -> ChosenGpuType | None:
    """The GpuType of a name: as the job's last run had it, else as it is now. Raises :class:`SpecError` when it is not valid."""
    if name is None:
        return None
    last = observed.last_run
    return (_kept(last.config.gpu_type, name) if last is not None else None) or usable_gpu_type(observed.gpu_type, name)


def _against_last_run(resolution: Resolution, last: LastRun | None, chosen: Chosen) -> Accepted | Refused:
    """Refuse what would make it another training; keep the global batch."""
    spec = resolution.spec
    if last is not None and (changed := changed_identity(spec, last.config.spec)):
        return Refused("EditRefused", _refusal(changed, last))
    fit = fit_global_batch(spec, last) if spec.replicas > 0 else None
    if fit is not None and fit.problem:
        return Refused("EditRefused", f"{fit.problem}, or create a new job")
    resolved = resolved_values(resolution, chosen)
    asked = None
    if fit is not None and fit.grad_accum_steps != spec.training.grad_accum_steps:
        asked = spec.training.grad_accum_steps
        training = spec.training.model_copy(update={"grad_accum_steps": fit.grad_accum_steps})
        spec = spec.model_copy(update={"training": training})
        resolved[GRAD_ACCUM] = Resolved(value=str(fit.grad_accum_steps), source="derived")
    return Accepted(spec, resolved, asked, warnings_for(resolution) | resume_warning(chosen.custom), chosen)


def changed_identity(spec: FineTuneJobSpec, before: FineTuneJobSpec) -> dict[str, tuple[Any, Any]]:
    """Identity fields that differ: path -> (before, now)."""
    old, new = identity(before), identity(spec)
    return {path: (old.get(path), new.get(path)) for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)}


def _refusal(changed: Mapping[str, tuple[Any, Any]], last: LastRun) -> str:
    edits = "; ".join(
        f"spec.{path} is {_text(now)}, run {last.config.run} was started with {_text(was)}" for path, (was, now) in changed.items()
    )
    return (
        f"{edits}. A started job keeps what makes it this training: put the old value back, or create a new job"
        f" (its checkpoint.resumeFrom may name a checkpoint under {last.config.store.uri})."
    )


_BY_NAME = frozenset({"model", "dataset", "gpuType"})
"""Sources that the last run config knows by their names."""


class _Base(NamedTuple):
    """What a job's spec is completed from."""

    job: Mapping[str, Any]
    """As written, but for references to a BaseModel and a Dataset that it has run with."""
    preset: Mapping[str, Any]
    kept: Mapping[str, str]
    """Path -> who had set it, for values of the last run that stay."""
    reasons: Mapping[str, str] = MappingProxyType({})
    """Path -> why, for those of them that a preset reckoned."""
    model: ChosenModel | None = None
    """The BaseModel whose values are among them."""
    dataset: ChosenDataset | None = None
    """The Dataset, likewise."""


def _frozen(job: JobObject, preset: Mapping[str, Any], last: LastRun | None) -> _Base:
    """Once a job has run, what it did not write stays as it was: neither an edited preset or catalogue nor new defaults change it."""
    if last is None:
        return _Base(job.spec, preset, {})
    before = {**flatten(last.config.spec.model_dump(by_alias=True, mode="json", exclude_none=True)), **last.asked}
    sources = {path: entry.source for path, entry in job.status.resolved.items() if path in before and entry.source not in _BY_NAME}
    reasons = {path: entry.reason for path, entry in job.status.resolved.items() if entry.reason is not None}
    kept: dict[str, str] = {path: source for path, source in sources.items() if source != "preset" or _is_bound(job, last)}
    written: Mapping[str, Any] = job.spec
    if (model := _kept(last.config.base_model, chosen_model(job.spec))) is not None:
        written = unflatten(without(flatten(job.spec), (MODEL_URI,)))
        kept |= {path: "model" for path in model.sets if path in before}
    of_preset = flatten(preset)
    if (dataset := _kept(last.config.dataset, chosen_dataset(job.spec))) is not None:
        written = unflatten(without(flatten(written), (DATASET_URI,)))
        of_preset = without(of_preset, DATASET_FIELDS)
        kept |= {path: "dataset" for path in dataset.sets if path in before}
    return _Base(written, unflatten({**of_preset, **{path: before[path] for path in kept}}), kept, reasons, model, dataset)


def _kept(before: Named | None, name: str | None) -> Named | None:
    """What a job has run with, if its spec still names it: then what becomes of that object does not matter to it."""
    return before if before is not None and before.name == name else None


def _resolve(
    base: _Base,
    custom: CustomMethod | None,
    base_model: Mapping[str, Any] | None,
    dataset: Mapping[str, Any] | None,
    gpu_type: ChosenGpuType | None,
) -> Resolution:
    """The resolved spec."""
    defaults = custom.spec.resources if custom is not None else None
    own = {"resources": defaults.model_dump(mode="json", by_alias=True, exclude_none=True)} if defaults is not None else None
    gpus = {"memory": gpu_type.spec.memory} if gpu_type is not None else None
    resolution = resolve(base.job, base.preset, own, base_model, dataset, gpus)
    told = {path: base.kept.get(path, source) if source == "preset" else source for path, source in resolution.sources.items()}
    return Resolution(resolution.spec, {path: _plain(source) for path, source in told.items()}, base.reasons)


def _plain(source: str) -> Any:
    """A resolution's source again: what a rule derived for the last run came from a default or preset before."""
    return source if source in get_args(Source) else "default"


def _preset_name(spec: Mapping[str, Any]) -> str | None:
    reference = spec.get("presetRef") or {}
    name = reference.get("name")
    return str(name) if name is not None else None


def resolved_values(resolution: Resolution, chosen: Chosen = NOTHING) -> dict[str, Resolved]:
    """The values the job did not write itself, with who decided; ``chosen``: what it starts from, trains on and runs on.

    Left out: fields with a schema default (they are in the spec already) and defaults that have no effect beside the rest.
    """
    leaves = flatten(resolution.spec.model_dump(by_alias=True, mode="json", exclude_none=True))
    idle = {advice.path for advice in WITHOUT_EFFECT if advice.applies(leaves)}
    named = {"model": chosen.base_model, "dataset": chosen.dataset, "gpuType": chosen.gpu_type}
    names = {source: each.name for source, each in named.items() if each is not None}
    values = {
        path: Resolved(value=_text(leaves[path])[:MAX_VALUE], source=source, name=names.get(source), reason=_reason(resolution, path))
        for path, source in resolution.sources.items()
        if source != "job" and path in leaves and path not in SCHEMA and leaves[path] not in ({}, [])
        if not (source == "default" and path in idle)
    }
    adapter = resolution.spec.adapter
    if adapter.type == "lora" and adapter.alpha is None and adapter.peft_config is None and adapter.attach is None:
        values["adapter.alpha"] = Resolved(value=str(adapter.rank), source="derived")
    return dict(list(values.items())[:MAX_RESOLVED])


def _reason(resolution: Resolution, path: str) -> str | None:
    """Why a preset's value is what it is, if it says so."""
    return resolution.reasons.get(path) if resolution.sources[path] == "preset" else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
