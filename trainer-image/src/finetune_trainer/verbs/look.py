"""``look``: what the data of a Dataset is, before a job is trained on it: readable, in which format, how much."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from finetune_api.contract import env
from finetune_api.contract.look import LookConfig, LookResult
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.defaults import BASE
from finetune_api.models.dataset import MAX_COLUMNS, MAX_SAMPLE_BYTES, DatasetSpec
from finetune_api.models.sources import DataSource
from finetune_api.resolve import resolve
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.check import DataCheck, Manner, Part, look_at_rows
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.layout import find_layout
from finetune_trainer.prepare.images import ImageCheck
from finetune_trainer.prepare.reading import Reader
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import Row, data_files
from finetune_trainer.prepare.wrapping import Wrapping
from finetune_trainer.protocol import MeasuredTokens
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.digest import dataset_digest
from finetune_trainer.sources.model_directory import CONFIG
from finetune_trainer.sources.remote_model import read_remote
from finetune_trainer.sources.resolve import Split, fetch_tokenizer
from finetune_trainer.sources.sample import Sample, sample_data
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import PodEnvironment, load_look_config
from finetune_trainer.verbs.answer import Answer, Task, answer_task
from finetune_trainer.verbs.data_check import MeasureTask, measure_tokens, with_tokens
from finetune_trainer.vision import has_vision

logger = logging.getLogger(__name__)
METHODS = ("sft", "dpo", "grpo")
"""Methods in the order in which rows are tried: a Dataset serves whichever method can read its first row."""
MAX_NAME_BYTES, MAX_NAMES_BYTES = 64, 640
"""Of a column, and of all that are named."""
MAX_WARNING_BYTES = 300
NOT_COUNTED = "TokensNotCounted"
_OF_JOB = re.compile(rf"\bdataset\.({'|'.join(str(info.alias) for info in DatasetSpec.model_fields.values())})\b")
WRAPPING = Wrapping(has_chat_template=True)


def run_look(environment: PodEnvironment) -> int:
    """Look and answer; returns the exit code."""

    def read() -> Task:
        config = load_look_config(environment.run_config)
        return Task(config.look, "info", config.offline, lambda: look(config, environment))

    return answer_task(environment, read)


def look(config: LookConfig, environment: PodEnvironment) -> Answer:
    """What the data is. Raises :class:`TrainerError` that names file, line and field, or what is missing."""
    try:
        result = _look(config, environment)
    except TrainerError as error:
        raise TrainerError(error.failure_class, _of_dataset(error.message)) from error
    assert result.dataset is not None, "rows were read"
    whole = "" if result.dataset.is_whole else " that were looked at"
    message = f"{result.dataset.examples} examples{whole}, format {result.dataset.format}"
    return Answer(message, result.model_dump(mode="json", by_alias=True, exclude_none=True))


def _look(config: LookConfig, environment: PodEnvironment) -> LookResult:
    spec, directory = config.spec, environment.work_dir / "sample"
    context = _context(config, environment)
    sample = sample_data(_source(spec, spec.uri, "dataset.uri", environment), context, _split(spec), directory / "rows")
    source = _data_source(spec)
    manner = Manner(_method(sample.files, source, config), WRAPPING, spec.on_error == "skip")
    checked = _rows(sample, source, manner, config)
    facts = checked.facts
    if spec.eval_uri is not None:
        held_out = sample_data(_source(spec, spec.eval_uri, "dataset.evalUri", environment), context, _split(spec), directory / "eval")
        facts = facts.model_copy(update={"eval_examples": _rows(held_out, source, manner, config).facts.examples})
    warnings = dict(checked.warnings)
    if spec.tokenizer is not None:
        measured = _measured(config, environment, context, Part(source, sample.files, sample.is_whole), manner.method)
        facts = with_tokens(facts, measured)
        if not measured.rows:
            warnings[NOT_COUNTED] = measured.message or "the program that counts tokens did not end as it should; see the pod's log"
    return LookResult(
        dataset=facts,
        columns=fit_columns(checked.columns),
        samples=[render_sample(row) for row in checked.first],
        digest=dataset_digest([file.path for file in data_files(sample.files)]) if sample.is_whole else None,
        warnings={condition: cut(text, MAX_WARNING_BYTES) for condition, text in warnings.items()},
    )


def _rows(sample: Sample, source: DataSource, manner: Manner, config: LookConfig) -> DataCheck:
    return look_at_rows([Part(source, sample.files, sample.is_whole)], manner, images=ImageCheck(offline=config.offline))


def _measured(config: LookConfig, environment: PodEnvironment, context: SourceContext, part: Part, method: str) -> MeasuredTokens:
    """Tokens of the first rows. None of them where the rows do not fit the tokenizer, which is no fault of the data.

    Raises :class:`TrainerError` when there is no such tokenizer.
    """
    spec = config.spec
    assert spec.tokenizer is not None, "only asked where one is named"
    source = _source(spec, spec.tokenizer.uri, "tokenizer.uri", environment)
    tokenizer = fetch_tokenizer(source, context).directory
    shape = read_remote(source, context, CONFIG)
    run_config = environment.work_dir / "measure-config.json"
    run_config.write_text(_as_job(config, method).to_json(), encoding="utf-8")
    task = MeasureTask([part], has_vision=shape is not None and has_vision(json.loads(shape)))
    return measure_tokens(environment, run_config, tokenizer, task) or MeasuredTokens(rows=0)


def _as_job(config: LookConfig, method: str) -> RunConfig:
    """A job that would train on the data, for the program that counts tokens as a training does."""
    spec = config.spec
    assert spec.tokenizer is not None, "only asked where one is named"
    said = {"uri": spec.uri, "format": spec.format, "promptColumn": spec.prompt_column, "outputColumn": spec.output_column}
    written = {"model": {"uri": spec.tokenizer.uri}, "method": method, "resources": {"device": "cpu"}}
    return RunConfig(
        contract_version=config.contract_version,
        job=JobIdentity(name=config.dataset.name, namespace=config.dataset.namespace, uid=config.dataset.uid),
        run=config.look,
        spec=resolve({**written, "dataset": {**said, "onError": "skip"}}).spec,
        topology=Topology(replicas=1, processes_per_replica=1, device="cpu", master_addr="localhost", master_port=env.MASTER_PORT),
        store=StoreConfig(uri="file:///nowhere"),
        offline=config.offline,
    )


def _method(files: Sequence[Path], source: DataSource, config: LookConfig) -> str:
    """The first method that can read the first row; the usual one where none can, which then says what is wrong."""
    for method in METHODS:
        try:
            if _reads(files, source, method, config):
                return method
        except TrainerError as error:
            logger.info("rows are not those of method %s: %s", method, error.message)
    return METHODS[0]


def _reads(files: Sequence[Path], source: DataSource, method: str, config: LookConfig) -> bool:
    reader = Reader(source, method, WRAPPING, Rejects(skip=True), ImageCheck(offline=config.offline))
    found = next(reader.read(data_files(files), 1), None)
    return found is not None and convert(found.raw, find_layout(found.raw, source, method), method) is not None


def fit_columns(names: Sequence[str]) -> list[str]:
    """The first columns, as far as there is room for their names."""
    fitting: list[str] = []
    for name in (cut(name, MAX_NAME_BYTES) for name in names[:MAX_COLUMNS]):
        if sum(map(_weight, [*fitting, name])) > MAX_NAMES_BYTES:
            break
        fitting.append(name)
    return fitting


def render_sample(row: Row) -> str:
    """A row as JSON, cut to :data:`MAX_SAMPLE_BYTES`."""
    return cut(json.dumps(dict(row.fields), ensure_ascii=False, default=_shown), MAX_SAMPLE_BYTES)


def cut(text: str, most: int) -> str:
    """The beginning of a text that takes at most some bytes within JSON."""
    if _weight(text) <= most:
        return text
    while _weight(text) > most - len("…".encode()):
        text = text[: min(len(text) - 1, int(len(text) * most / _weight(text)))]
    return f"{text}…"


def _shown(value: object) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


def _weight(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def _of_dataset(message: str) -> str:
    """A sentence on a job's block dataset as one on a Dataset, whose fields stand in spec itself."""
    return _OF_JOB.sub(r"spec.\1", message)


def _split(spec: DatasetSpec) -> Split:
    return Split(spec.split or BASE["dataset.split"], spec.config)


def _data_source(spec: DatasetSpec) -> DataSource:
    return DataSource(
        uri=spec.uri,
        format=spec.format or BASE["dataset.format"],
        prompt_column=spec.prompt_column,
        output_column=spec.output_column,
    )


def _source(spec: DatasetSpec, uri: str, role: str, environment: PodEnvironment) -> Source:
    name = spec.secret_ref.name if spec.secret_ref is not None else "(secretRef is not set)"
    return Source(uri, role, SecretFiles(environment.secrets_dir / env.SECRET_DATASET, name), spec.region)


def _context(config: LookConfig, environment: PodEnvironment) -> SourceContext:
    hub = config.spec.secrets.huggingface if config.spec.secrets is not None else None
    name = hub.secret_ref.name if hub is not None else "(secrets.huggingface.secretRef is not set)"
    return SourceContext(
        cache_dir=environment.cache_dir,
        pvc_dir=environment.pvc_dir,
        configmap_dir=environment.configmap_dir,
        hub_secret=SecretFiles(environment.secrets_dir / env.SECRET_HUGGINGFACE, name),
        offline=config.offline,
    )
