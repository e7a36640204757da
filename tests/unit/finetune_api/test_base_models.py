"""BaseModels: what a job gets from the one it names, which of its values give way, and the models that are shipped."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.base_models import SHIPPED_BASE_MODELS
from finetune_api.catalogue import ineligible
from finetune_api.models.partial import BaseModelInput, leaf_fields, validate_base_model, validate_job
from finetune_api.placement import fields_read
from finetune_api.problems import SpecError
from finetune_api.resolve import Resolution, chosen_model, flatten, resolve
from finetune_api.rules import check_resolved
from finetune_api.rules.base_model import DEFAULT_RULES, DEFAULTABLE
from tests.support.manifests import spec_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def resolved(leaves: dict[str, Any], preset: dict[str, Any] | None = None, **model: Any) -> Resolution:
    """A job that names a BaseModel."""
    return resolve(spec_of({"model.uri": "ref:own", **leaves}), preset, None, {"uri": "hf://org/own", "type": "LLM", **model})


@pytest.mark.parametrize(
    ("job", "preset", "name"),
    [
        ("hf://org/model", None, None),
        ("ref:a", None, "a"),
        ("ref:a", "ref:b", "a"),
        ("hf://org/model", "ref:b", None),
        (None, "ref:b", "b"),
        (None, None, None),
    ],
)
def test_the_model_a_job_chooses(job: str | None, preset: str | None, name: str | None) -> None:
    """C-02: job before preset."""
    assert chosen_model({"model": {"uri": job}}, {"model": {"uri": preset}}) == name


def test_address_type_and_defaults_come_from_the_model() -> None:
    """C-02, C-07: with their source; what nobody says comes from the table."""
    resolution = resolved({}, type="VLM", defaults={"adapter": {"rank": 8}})
    assert (resolution.spec.model.uri, resolution.spec.model.type, resolution.spec.adapter.rank) == ("hf://org/own", "VLM", 8)
    assert {path for path, source in resolution.sources.items() if source == "model"} == {"model.uri", "model.type", "adapter.rank"}
    assert resolution.spec.model.trust_remote_code is False
    assert check_resolved(resolution) == []


def test_precedence() -> None:
    """Design §3: job > preset > BaseModel > adapter and method > table."""
    defaults = {"training": {"maxSeqLength": 1024, "gradientCheckpointing": False}, "adapter": {"rank": 8, "alpha": 8, "dropout": 0.5}}
    resolution = resolved({"adapter.rank": 2}, {"adapter": {"rank": 4, "alpha": 4}}, defaults=defaults)
    adapter = resolution.spec.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout, resolution.spec.training.max_seq_length) == (2, 4, 0.5, 1024)
    sources = [resolution.sources[f"adapter.{name}"] for name in ("rank", "alpha", "dropout", "type")]
    assert sources == ["job", "preset", "model", "default"]


def test_an_address_of_the_job_needs_no_catalogue() -> None:
    """A preset that names one does not count then."""
    spec = resolve(spec_of({}), {"model": {"uri": "ref:other"}}).spec
    assert spec.model.uri == "hf://org/model"


@pytest.mark.parametrize(
    ("leaves", "defaults", "left"),
    [
        ({"adapter.type": "full"}, {"adapter": {"rank": 8, "targetModules": ["c_attn"]}}, set()),
        ({"method": "pretrain"}, {"adapter": {"rank": 8}}, set()),
        ({"adapter.attach.uri": "hf://org/adapter"}, {"adapter": {"targetModules": ["q_proj"]}}, set()),
        ({"precision.fp16": True}, {"precision": {"dtype": "bfloat16", "bf16": True}}, set()),
        ({"dataset.promptTemplate": "{prompt}"}, {"dataset": {"chatTemplate": "{{ messages }}"}}, set()),
        ({"dataset.systemPrompt": "Be brief."}, {"dataset": {"chatTemplate": "{{ messages }}"}}, {"dataset.chatTemplate"}),
        ({"quantization.mode": "none"}, {"quantization": {"mode": "4bit"}}, set()),
    ],
)
def test_what_the_model_prefers_gives_way(leaves: dict[str, Any], defaults: dict[str, Any], left: set[str]) -> None:
    """A job that goes another way is not refused for what the catalogue says."""
    resolution = resolved(leaves, None, defaults=defaults)
    assert check_resolved(resolution) == []
    assert {path for path, source in resolution.sources.items() if source == "model"} - {"model.uri", "model.type"} == left


def test_the_rules_see_what_the_model_says() -> None:
    """Of model and job together; the path is that of the job."""
    (problem,) = check_resolved(resolved({"adapter.type": "full"}, defaults={"quantization": {"mode": "4bit"}}))
    assert problem.path == "spec.quantization.mode"
    (problem,) = check_resolved(resolved({"model.trustRemoteCode": True}))
    assert (problem.path, "must name a commit" in problem.message) == ("spec.model.uri", True)
    assert check_resolved(resolved({}, uri=f"hf://org/own@{COMMIT}", trustRemoteCode=True)) == []
    assert check_resolved(resolved({"training.maxSeqLength": 16384}, defaults={"training": {"longContext": True}})) == []


def test_a_job_may_refuse_the_code_of_its_model() -> None:
    resolution = resolved({"model.trustRemoteCode": False}, uri=f"hf://org/own@{COMMIT}", trustRemoteCode=True)
    assert (resolution.spec.model.trust_remote_code, resolution.sources["model.trustRemoteCode"]) == (False, "job")


def test_a_model_of_a_training_method() -> None:
    """The administrator's program is told the address; what the model needs counts as well."""
    resolution = resolved({"methodRef.name": "own"}, defaults={"quantization": {"mode": "4bit"}})
    assert (resolution.spec.model.uri, resolution.spec.quantization.mode) == ("hf://org/own", "4bit")
    assert check_resolved(resolution) == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ref:", 'spec.model.uri: "ref:" should be an address: hf://org/name@revision, '),
        ("ref: a", "or ref:name, a BaseModel"),
        ("ref:Qwen", "spec.model.uri: ref: is followed by a BaseModel's name: at most 253 lower case letters, digits, - and .; "),
        ("ref://qwen", "kubectl get basemodels lists them"),
    ],
)
def test_a_bad_name_is_refused_with_a_sentence(uri: str, says: str) -> None:
    """C-02."""
    with pytest.raises(SpecError) as caught:
        validate_job(spec_of({"model.uri": uri}))
    assert says in str(caught.value)


def test_only_the_job_s_model_is_of_the_catalogue() -> None:
    for path in ("model.tokenizer.uri", "dpo.referenceModel", "adapter.attach.uri"):
        with pytest.raises(SpecError, match=path.replace(".", r"\.")):
            validate_job(spec_of({path: "ref:own", "method": "dpo"}))


def test_problems_of_an_entry_name_its_fields() -> None:
    spec = {
        "uri": "hf://org/own@main",
        "type": "LLM",
        "trustRemoteCode": True,
        "defaults": {"precision": {"fp16": True, "bf16": True}, "adapter": {"targetModules": ["c_attn"], "allowCustomModules": False}},
    }
    with pytest.raises(SpecError) as caught:
        validate_base_model(spec)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.uri",
        "spec.defaults.adapter.targetModules",
        "spec.defaults.precision.bf16",
    ]
    with pytest.raises(SpecError, match=r"spec\.defaults\.epochs: unknown field"):
        validate_base_model({"uri": "hf://org/own", "type": "LLM", "defaults": {"epochs": 3}})


def test_a_model_has_no_say_in_what_is_trained() -> None:
    """Nothing of a job but what a model is made of; no data, no lengths of the training, no place."""
    fields = {path.removeprefix("defaults.") for path, _ in leaf_fields(BaseModelInput) if path.startswith("defaults.")}
    assert fields == DEFAULTABLE
    assert all(fields_read(rule.cel) <= DEFAULTABLE for rule in DEFAULT_RULES)
    assert len(DEFAULT_RULES) >= 6


def test_the_shipped_models() -> None:
    """C-08, AC-33: the eight of the source, six LLM and two VLM. C-09: the one that is stored in 4 bits."""
    by_uri = {spec["uri"].removeprefix("hf://"): spec["type"] for spec in SHIPPED_BASE_MODELS.values()}
    assert by_uri == {
        "meta-llama/Llama-3.1-8B-Instruct": "LLM",
        "meta-llama/Llama-3.2-1B-Instruct": "LLM",
        "meta-llama/Llama-3.2-3B-Instruct": "LLM",
        "meta-llama/Llama-3.2-11B-Vision-Instruct": "VLM",
        "Qwen/Qwen2.5-3B-Instruct": "LLM",
        "Qwen/Qwen2.5-14B-Instruct": "LLM",
        "Qwen/Qwen2.5-VL-7B-Instruct": "VLM",
        "tiiuae/falcon-7b-instruct": "LLM",
        "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit": "LLM",
    }


@pytest.mark.parametrize("name", SHIPPED_BASE_MODELS)
def test_every_shipped_model_can_be_chosen(name: str) -> None:
    """C-04: parameters and memory per parameter are known of each. C-03: the one that is refused by name is not eligible, and says why."""
    spec = SHIPPED_BASE_MODELS[name]
    validate_base_model(spec)
    validate_job(spec_of({"model.uri": f"ref:{name}"}))
    resolution = resolve(spec_of({"model.uri": f"ref:{name}"}), None, None, spec)
    assert check_resolved(resolution) == []
    assert resolution.spec.model.uri == spec["uri"]
    assert spec["parameters"] > 10**9
    assert 0.5 < spec["bytesPerParameter"]["fourBit"] < 1
    refused = ineligible(name, spec)
    assert (refused is not None) == (name == "llama-3.2-11b-vision-instruct")
    assert refused is None or "mllama, by name" in refused.message


def test_a_model_stored_in_4_bits_is_trained_in_4_bits() -> None:
    """C-09: and not as a whole."""
    spec = SHIPPED_BASE_MODELS["llama-3.1-8b-instruct-bnb-4bit"]
    assert resolve(spec_of({"model.uri": "ref:x"}), None, None, spec).spec.quantization.mode == "4bit"
    assert check_resolved(resolve(spec_of({"model.uri": "ref:x", "adapter.type": "full"}), None, None, spec)) != []


def test_an_entry_without_a_word_on_it_is_eligible() -> None:
    """C-03: as the API server stores it, too."""
    assert ineligible("own", {}) is None
    refused = ineligible("own", {"eligible": False})
    assert refused is not None
    assert refused.path == "spec.model.uri"


def test_a_resolved_job_never_has_a_name() -> None:
    with pytest.raises(AssertionError):
        resolve(spec_of({"model.uri": "ref:own"}))
    assert "ref:" not in str(flatten(resolved({}).spec.model_dump(mode="json", by_alias=True)))
