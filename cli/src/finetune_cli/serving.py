"""The Job of a server that answers with what a FineTuneJob has trained: which parts of the job it needs, and what its pod is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from finetune_api.constants import API_VERSION, DEFAULT_STORE_SECRET, GPU_RESOURCE, KIND
from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.pod import memory_of_weights
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.contract.serve import COMPONENT_SERVE, Form, ServeConfig
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import flatten, resolve, unflatten
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.short_jobs import Manifest, Mount, ShortJob, Surroundings, build_short_job, mount_cache, mount_secret, mount_sources

CPU: Final = "500m"
KEPT_SECONDS: Final = 600
"""How long an ended server's Job is kept for its log."""
FIELDS: Final = ("method", "adapter.type", "cache.claimName", "checkpoint.secretRef.name", "secrets.huggingface.secretRef.name")
MODEL: Final = "model."
PROMPT_FIELDS: Final = ("dataset.systemPrompt", "dataset.promptTemplate")
"""How prompts are put to the model; only a checkpoint of a job without a result is asked with what the status says of them."""
SHOWN: Final = 256
"""Characters of a value in ``status.resolved`` at most."""
SCORES: Final = "reward"
"""A method whose models give a number, no text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to answer."""

    form: Form = Form.FINAL
    checkpoint: int | None = None
    """Step; None: the result."""
    gpu: bool = False


def check_askable(job: Job, asked: Asked) -> None:
    """Refuse a job that has nothing to ask (V-01).

    Raises:
        CliError: it has no result, nothing in its store, or what it trains does not write text.
    """
    own = _leaves(job).get("methodRef.name")
    if own is not None:
        raise CliError(f"{job.ref} was trained by TrainingMethod {own}, whose results only its own program can load")
    if job.status.method == SCORES:
        raise CliError(f"{job.ref} is a reward model: it gives scores, no answers")
    if asked.checkpoint is not None and asked.form is not Form.FINAL:
        raise CliError(f"--form {asked.form} is a form of the result; a checkpoint (--checkpoint {asked.checkpoint}) has none")
    if asked.checkpoint is None and job.status.artifacts.final_uri is None:
        ledger = job.status.checkpoints
        steps = sorted({found.step for found in (*ledger.recent, *filter(None, (ledger.best, ledger.latest)))})
        known = f"A checkpoint can be asked with --checkpoint; its status knows {', '.join(map(str, steps))}." if steps else ""
        raise CliError(f"{job.ref} has no result to ask; its phase is {job.phase}", advice=known)
    if job.status.output_uri is None:
        raise CliError(f"{job.ref} has written nothing yet; its phase is {job.phase}")


def build_server(job: Job, asked: Asked, here: Surroundings, gpu_types: Iterable[Mapping[str, Any]] = ()) -> ShortJob:
    """The Job of a server; the same for the same question, so that it is found again. It goes with the FineTuneJob.

    Raises:
        CliError: the job cannot be asked, or its GpuType is not there.
    """
    check_askable(job, asked)
    spec = spec_of(job, asked)
    config = ServeConfig(
        contract_version=CONTRACT_VERSION,
        run=_run_config(job, spec, here),
        form=asked.form,
        checkpoint=asked.checkpoint,
        device="gpu" if asked.gpu else "cpu",
    )
    written = job.spec.get("resources") or {}
    made = build_short_job(
        COMPONENT_SERVE,
        job.ref.name,
        config,
        namespace=job.ref.namespace,
        sees=_sees(spec, job.status.store_secret or DEFAULT_STORE_SECRET),
        here=here._replace(image=written.get("image") or here.image),
    )
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": job.ref.name, "uid": job.uid}
    special = {"backoffLimit": 0, "ttlSecondsAfterFinished": KEPT_SECONDS, "template": _template(made.job, job, asked, gpu_types)}
    manifest = {
        **made.job,
        "metadata": {**made.job["metadata"], "ownerReferences": [owner]},
        "spec": {**made.job["spec"], **special},
    }
    return ShortJob(manifest, made.config_map)


def spec_of(job: Job, asked: Asked) -> FineTuneJobSpec:
    """What a server needs of the job's spec: as the job writes it, else as its first run resolved it. All else is the table's.

    Raises:
        CliError: the status does not say what the job's model is, or has a prompt only in part.
    """
    leaves = _leaves(job)
    needed = {path: value for path, value in leaves.items() if path.startswith(MODEL) or path in (*FIELDS, *PROMPT_FIELDS)}
    if str(needed.get("model.uri", "ref:")).startswith("ref:"):
        raise CliError(f"{job.ref} has not run yet: what model.uri {needed.get('model.uri')} stands for is not known")
    cut = [path for path in PROMPT_FIELDS if path not in flatten(job.spec) and _is_cut(str(needed.get(path, "")))]
    if cut and asked.checkpoint is not None and job.status.artifacts.final_uri is None:
        raise CliError(f"{job.ref}: {cut[0]} of its preset is too long for the status; ask the job once it has a result")
    try:
        return resolve(unflatten({**needed, "dataset.uri": "configmap://none/none", "resources.device": "cpu"})).spec
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CliError(f"{job.ref} cannot be read: spec.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _leaves(job: Job) -> dict[str, Any]:
    """Fields as the job writes them; what others decided, as its first run found it. A ref: gives way to what it stands for."""
    said = {path: entry.value == "true" if path == "model.trustRemoteCode" else entry.value for path, entry in job.status.resolved.items()}
    written = {path: value for path, value in flatten(job.spec).items() if path not in said or not str(value).startswith("ref:")}
    return {**said, **written}


def _is_cut(value: str) -> bool:
    return len(value) >= SHOWN or value.endswith("…")


def _run_config(job: Job, spec: FineTuneJobSpec, here: Surroundings) -> RunConfig:
    assert job.status.output_uri is not None, "checked before"
    return RunConfig(
        contract_version=CONTRACT_VERSION,
        job=JobIdentity(name=job.ref.name, namespace=job.ref.namespace, uid=job.uid),
        run=job.status.run,
        spec=spec,
        topology=Topology(replicas=1, processes_per_replica=1, device="cpu", master_addr="localhost", master_port=env.MASTER_PORT),
        store=StoreConfig(uri=job.status.output_uri, endpoint=here.endpoint, region=here.region),
        offline=here.is_offline,
    )


def _sees(spec: FineTuneJobSpec, store_secret: str) -> list[Mount]:
    hub = spec.secrets.huggingface
    secrets = {
        env.SECRET_STORE: spec.checkpoint.secret_ref.name if spec.checkpoint.secret_ref else store_secret,
        env.SECRET_MODEL: spec.model.secret_ref.name if spec.model.secret_ref else None,
        env.SECRET_HUGGINGFACE: hub.secret_ref.name if hub else None,
    }
    sees = [mount_secret(directory, name) for directory, name in secrets.items() if name is not None]
    cache = [mount_cache(spec.cache.claim_name)] if spec.cache.claim_name else []
    return [*sees, *mount_sources([spec.model.uri]), *cache]


def _template(made: Manifest, job: Job, asked: Asked, gpu_types: Iterable[Mapping[str, Any]]) -> Manifest:
    """The pod of a short Job as a server's: with room for the model, and where the job's own pods may run."""
    template = made["spec"]["template"]
    written = job.spec.get("resources") or {}
    more = written.get("podTemplate") or {}
    (container,) = template["spec"]["containers"]
    gpu = _gpu(job, gpu_types) if asked.gpu else {}
    resources: Manifest = {"requests": {"cpu": CPU, "memory": memory_of_weights({} if asked.gpu else job.status.facts)}}
    if asked.gpu:
        resources["limits"] = {gpu.get("resourceName", GPU_RESOURCE): "1"}
    own = {each["name"] for each in more.get("env") or ()}
    variables = [*(each for each in container["env"] if each["name"] not in own), *(more.get("env") or ())]
    tolerations = [*(written.get("tolerations") or ()), *(gpu.get("tolerations") or ())]
    selector = {**((written.get("nodeSelector") or {}) if asked.gpu else {}), **(gpu.get("nodeSelector") or {})}
    placed = {"tolerations": tolerations, "nodeSelector": selector, "priorityClassName": written.get("priorityClassName")}
    return {
        "metadata": {
            "labels": {**(more.get("labels") or {}), **template["metadata"]["labels"]},
            **({"annotations": more["annotations"]} if more.get("annotations") else {}),
        },
        "spec": {
            **template["spec"],
            **{field: value for field, value in placed.items() if value},
            "containers": [{**container, "env": variables, "resources": resources}],
        },
    }


def _gpu(job: Job, gpu_types: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The GpuType of a job; nothing for one that takes any GPU."""
    name = _leaves(job).get("resources.gpuType")
    if name is None:
        return {}
    found = next((each["spec"] for each in gpu_types if each["metadata"]["name"] == name), None)
    if found is None:
        raise CliError(
            f"--gpu: {job.ref} is for GpuType {name}, which the cluster no longer has", advice="Leave --gpu out, or make it anew."
        )
    return dict(found)
