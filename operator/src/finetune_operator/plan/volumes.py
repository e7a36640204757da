"""Volumes of a trainer pod: scratch, credentials as files, data from claims and ConfigMaps. Paths are the contract's."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from finetune_api.constants import CA_CONFIGMAP
from finetune_api.contract import env
from finetune_api.contract.custom import JOB_FILE, OUTPUT_CLAIM_DIR, chosen
from finetune_api.contract.pod import SECRET_MODE
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.dataset import DatasetSpec
from finetune_api.models.spec import FineTuneJobSpec
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.outside import trust_source
from finetune_operator.settings import PlanSettings

TOKEN_SECONDS = 3600
PUSHING = frozenset({"preflight", "export"})
"""Verbs that see the token a push needs: one checks it, one uses it."""


class Mounted(NamedTuple):
    """A volume and where it is seen."""

    volume: Manifest
    mount: Manifest


def build_volumes(config: RunConfig, config_map: str, verb: str, settings: PlanSettings) -> list[Mounted]:
    """Every volume of a trainer pod that runs ``verb``; ``config_map`` holds the run config."""
    spec = config.spec
    return [
        _mounted("run", posixpath.dirname(env.RUN_CONFIG_PATH), {"configMap": {"name": config_map}}, read_only=True),
        _mounted("work", env.WORK_DIR, {"emptyDir": {}}),
        _mounted("tmp", "/tmp", {"emptyDir": {}}),  # noqa: S108 - a mount point
        _mounted("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", **_limit(spec.resources.shared_memory)}}),  # noqa: S108 - likewise
        _cache(spec),
        _token(),
        _mounted("ca", posixpath.dirname(env.PROGRESS_CA_PATH), {"configMap": {"name": CA_CONFIGMAP, "optional": True}}, read_only=True),
        *_trust(settings),
        *(_secret(directory, name) for directory, name in secrets_of(spec, verb, settings)),
        *_claims(references_of(spec, "pvc")),
        *_config_maps(references_of(spec, "configmap")),
        *(_of_method(config, config_map) if verb == "train" and config.custom is not None else ()),
    ]


def build_look_volumes(spec: DatasetSpec, config_map: str, settings: PlanSettings) -> list[Mounted]:
    """Every volume of a pod that looks at the data of a Dataset."""
    uris = (spec.uri, spec.eval_uri, spec.tokenizer.uri if spec.tokenizer is not None else None)
    hub = spec.secrets.huggingface if spec.secrets is not None else None
    return [
        _mounted("run", posixpath.dirname(env.RUN_CONFIG_PATH), {"configMap": {"name": config_map}}, read_only=True),
        *(_mounted(name, path, {"emptyDir": {}}) for name, path in (("work", env.WORK_DIR), ("tmp", "/tmp"), ("cache", env.CACHE_DIR))),  # noqa: S108 - a mount point
        *_trust(settings),
        *([_secret(env.SECRET_DATASET, spec.secret_ref.name)] if spec.secret_ref is not None else []),
        *([_secret(env.SECRET_HUGGINGFACE, hub.secret_ref.name)] if hub is not None else []),
        *_claims(named_by(uris, "pvc")),
        *_config_maps(named_by(uris, "configmap")),
    ]


def secrets_of(spec: FineTuneJobSpec, verb: str, settings: PlanSettings) -> Iterator[tuple[str, str]]:
    """(directory under SECRETS_DIR, name of the Secret) for each credential the job names and the verb needs."""
    yield env.SECRET_STORE, spec.checkpoint.secret_ref.name if spec.checkpoint.secret_ref else settings.storage_secret
    if spec.model.secret_ref:
        yield env.SECRET_MODEL, spec.model.secret_ref.name
    if spec.adapter.attach is not None and spec.adapter.attach.secret_ref and verb != "export":
        yield env.SECRET_ADAPTER, spec.adapter.attach.secret_ref.name
    if spec.dataset.secret_ref and verb != "export":
        yield env.SECRET_DATASET, spec.dataset.secret_ref.name
    for index, part in enumerate(spec.dataset.additional or []):
        if part.secret_ref:
            yield f"{env.SECRET_ADDITIONAL_PREFIX}{index}", part.secret_ref.name
    if spec.secrets.huggingface:
        yield env.SECRET_HUGGINGFACE, spec.secrets.huggingface.secret_ref.name
    if verb in PUSHING and spec.output.push.enabled and spec.output.push.secret_ref:
        yield env.SECRET_PUSH, spec.output.push.secret_ref.name
    for index, tracker in enumerate(spec.logging.trackers):
        if tracker.secret_ref and verb != "export":
            yield f"{env.SECRET_TRACKER_PREFIX}{index}", tracker.secret_ref.name


def references_of(spec: FineTuneJobSpec, scheme: str) -> list[str]:
    """Names a job refers to by URIs of a scheme (``pvc``, ``configmap``), each once, in a stable order."""
    uris = (
        spec.model.uri,
        spec.model.tokenizer.uri if spec.model.tokenizer else None,
        *(part.uri for part in spec.dataset.parts),
        spec.dataset.eval_uri,
        spec.adapter.peft_config,
        spec.adapter.attach.uri if spec.adapter.attach else None,
        spec.checkpoint.resume_from,
        *(block.reference_model for block in (spec.dpo, spec.kto, spec.grpo) if block is not None),
        *_reward_sources(spec),
    )
    return named_by(uris, scheme)


def named_by(uris: Iterable[str | None], scheme: str) -> list[str]:
    """Names in the URIs of a scheme, each once, in a stable order."""
    names = (re.match(rf"{scheme}://([^/]+)", uri) for uri in uris if uri)
    return sorted({match[1] for match in names if match})


def _reward_sources(spec: FineTuneJobSpec) -> Iterator[str | None]:
    if spec.grpo is not None:
        yield spec.grpo.reward_model
        yield from (entry.source for entry in spec.grpo.reward_functions or [])


def _cache(spec: FineTuneJobSpec) -> Mounted:
    if spec.cache.claim_name:
        return _mounted("cache", env.CACHE_DIR, {"persistentVolumeClaim": {"claimName": spec.cache.claim_name}})
    return _mounted("cache", env.CACHE_DIR, {"emptyDir": _limit(spec.cache.size_limit)})


def _token() -> Mounted:
    directory, file = posixpath.split(env.PROGRESS_TOKEN_PATH)
    source = {"serviceAccountToken": {"audience": env.PROGRESS_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": file}}
    return _mounted("token", directory, {"projected": {"sources": [source], "defaultMode": SECRET_MODE}}, read_only=True)


def _secret(directory: str, name: str) -> Mounted:
    """A credential; optional, since a pod that waits for a missing Secret says nothing, while the trainer names what is missing."""
    volume = {"secret": {"secretName": name, "optional": True, "defaultMode": SECRET_MODE}}
    return _mounted(f"secret-{directory}", f"{env.SECRETS_DIR}/{directory}", volume, read_only=True)


def _trust(settings: PlanSettings) -> Iterator[Mounted]:
    source = trust_source(settings)
    if source is not None:
        yield _mounted("trust", env.CA_BUNDLE_DIR, source, read_only=True)


def _claims(claims: Iterable[str]) -> Iterator[Mounted]:
    for index, claim in enumerate(claims):
        volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        yield _mounted(f"claim-{index}", f"{env.PVC_DIR}/{claim}", volume, read_only=True)


def _config_maps(names: Iterable[str]) -> Iterator[Mounted]:
    for index, name in enumerate(names):
        yield _mounted(f"configmap-{index}", f"{env.CONFIGMAP_DIR}/{name}", {"configMap": {"name": name, "optional": True}}, read_only=True)


def _of_method(config: RunConfig, config_map: str) -> Iterator[Mounted]:
    """The file a TrainingMethod's program reads, and the claim it may write to."""
    key = posixpath.basename(JOB_FILE)
    volume = {"name": "job", "configMap": {"name": config_map, "items": [{"key": key, "path": key}]}}
    yield Mounted(volume, {"name": "job", "mountPath": JOB_FILE, "subPath": key, "readOnly": True})
    _, ref = chosen(config)
    if ref.output_claim is not None:
        yield _mounted("output", OUTPUT_CLAIM_DIR, {"persistentVolumeClaim": {"claimName": ref.output_claim}})


def _limit(size: str | None) -> Manifest:
    return {"sizeLimit": size} if size else {}


def _mounted(name: str, path: str, source: Manifest, *, read_only: bool = False) -> Mounted:
    return Mounted({"name": name, **source}, {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})})
