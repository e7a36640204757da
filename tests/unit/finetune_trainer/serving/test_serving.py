"""The serve verb: a finished training in a store, asked over HTTP; in this process, with a real tiny model."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_USER_ERROR
from finetune_api.contract.run_config import RunConfig, StoreConfig
from finetune_api.contract.serve import ChatRequest, Form, Health, Question, RowRequest, Samples, ServeConfig, ServerState
from finetune_api.contract.store import Exported, ExportManifest, FinalManifest, Manifest, Pinned, SamplePrompt
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.merge import load_final, save_merged
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.serving.board import Board
from finetune_trainer.serving.generation import ModelGenerator, load_generator
from finetune_trainer.serving.run import run_serve
from finetune_trainer.serving.server import listening
from finetune_trainer.serving.weights import Weights, find_weights, load_dataset, load_prompts
from finetune_trainer.sources.digest import directory_digest
from finetune_trainer.store.local import LocalStore
from finetune_trainer.store.transfer import upload_files
from finetune_trainer.verbs.results import find_final
from tests.support.ports import free_port
from tests.support.tiny_outputs import SIZES, byte_level, make_case
from tests.unit.finetune_trainer.verbs.conftest import VerbPod

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft uses names that transformers has renamed
PROMPT = SamplePrompt(split="train", prompt="<|im_start|>user\nhow many<|im_end|>\n", expected="three")
QUESTION = {"messages": [{"role": "user", "content": "how many pods?"}], "max_tokens": 8}


@dataclass(frozen=True)
class Trained:
    """A pod, and a store with final weights, their merged form and a checkpoint whose adapter says something else."""

    pod: VerbPod
    store: LocalStore

    def config(self, **changes: Any) -> ServeConfig:
        """What the verb is told."""
        self.pod.environment()
        run = RunConfig.model_validate_json((self.pod.directory / "run.json").read_bytes())
        return ServeConfig(contract_version=CONTRACT_VERSION, run=run, **changes)

    def find(self, **changes: Any) -> Weights:
        """Bring weights here."""
        shutil.rmtree(self.pod.directory / "work", ignore_errors=True)
        return find_weights(self.config(**changes), self.pod.environment(), self.store, lambda _: None)

    def load(self, **changes: Any) -> ModelGenerator:
        """Load them."""
        config = self.config(**changes)
        return load_generator(self.find(**changes), config, load_dataset(config, self.store), lambda _: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished training of a tiny Llama."""
    directory = tmp_path_factory.mktemp("serve")
    config = LlamaConfig(**SIZES, vocab_size=448)
    case, other = (make_case(directory, name, config, torch.float32, byte_level("gpt-2")) for name in ("case", "other"))
    pod = VerbPod(directory, StoreConfig(uri=f"file://{directory}/store/team/job"))
    shutil.rmtree(directory / "pvc/models/tiny")
    shutil.copytree(case.base, directory / "pvc/models/tiny")
    store = LocalStore(directory / "store/team/job", patience=5)

    def upload(source: Path, prefix: str) -> Any:
        return upload_files(store, source, prefix, sorted(path.name for path in source.iterdir()))

    final = FinalManifest(contract_version=1, kind="lora", step=7, attempt=1, source="last", files=upload(case.final, "final"))
    store.put("final/manifest.json", final.to_json().encode())
    save_merged(load_final(case.base, case.final), case.final, directory / "merged")
    exported = Exported(type="merged", prefix="final/merged", files=upload(directory / "merged", "final/merged"))
    digest = find_final(store, "ask").digest
    store.put("final/export.json", ExportManifest(contract_version=1, source=digest, exported=[exported]).to_json().encode())
    (other.final / "optimizer.pt").write_bytes(b"never loaded")
    for attempt, files in ((1, upload(case.final, "a1/checkpoint-3")), (2, upload(other.final, "a2/checkpoint-3"))):
        manifest = Manifest(
            contract_version=1, attempt=attempt, step=3, total_steps=7, epoch=0.5, created_at="2026-11-01T12:00:00Z", trigger="steps",
            kind="lora", strategy="none", world_size=1, pods=1, global_batch=1, files=files,
        )  # fmt: skip
        store.put(f"a{attempt}/checkpoint-3/manifest.json", manifest.to_json().encode())
    revision = directory_digest(directory / "pvc/models/tiny")
    store.put("pinned.json", Pinned(contract_version=1, model_revision=revision).to_json().encode())
    store.put("prompts.json", json.dumps([PROMPT.model_dump(by_alias=True)]).encode())
    return Trained(pod, store)


class Client:
    """Asks a server."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._address + path, timeout=60) as answer:  # noqa: S310 - an address of this machine
            return json.load(answer)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        request = urllib.request.Request(self._address + path, json.dumps(document).encode())  # noqa: S310 - likewise
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - likewise
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture
def board() -> Board:
    return Board(lambda: 0.0)


@pytest.fixture
def client(board: Board) -> Iterator[Client]:
    """A server that is still loading."""
    with listening(0, board) as port:
        yield Client(port)


@pytest.fixture(scope="module")
def generator(trained: Trained) -> ModelGenerator:
    return trained.load()


def test_the_adapter_on_its_base_answers_in_the_form_of_the_openai_api(
    trained: Trained, generator: ModelGenerator, board: Board, client: Client
) -> None:
    """V-01 V-07 V-14 P-13: loading, then answers; greedy ones are the same each time; prompts of the data are at hand."""
    board.tell("the base model")
    assert Health.model_validate(client.get("/healthz")) == Health(state=ServerState.LOADING, doing="the base model")
    assert client.post("/v1/chat/completions", QUESTION)[0] == 503
    board.open(generator, load_prompts(trained.store), "the final adapter of step 7")
    assert Health.model_validate(client.get("/healthz")).state is ServerState.IDLE
    code, first = client.post("/v1/chat/completions", QUESTION)
    assert (code, first["object"], first["choices"][0]["message"]["role"]) == (200, "chat.completion", "assistant")
    assert first["usage"]["completion_tokens"] <= 8
    assert client.post("/v1/chat/completions", QUESTION)[1]["choices"] == first["choices"]
    assert Samples.model_validate(client.get("/v1/samples")).prompts == [PROMPT]
    # A chat is its template's text: asked with the special tokens written out, the model answers the same.
    whole = {"prompt": "<|im_start|>user\nhow many pods?<|im_end|>\n", "max_tokens": 8}
    assert client.post("/v1/completions", whole)[1]["choices"][0]["text"] == first["choices"][0]["message"]["content"]
    code, drawn = client.post("/v1/chat/completions", {**QUESTION, "temperature": 1.0, "top_p": 0.95})
    assert (code, drawn["object"]) == (200, "chat.completion")


@pytest.mark.parametrize(
    ("path", "document", "said"),
    [
        ("/v1/chat/completions", {**QUESTION, "temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ("/v1/chat/completions", {**QUESTION, "repetition_penalty": 0.5}, "repetition_penalty"),
        ("/v1/chat/completions", {**QUESTION, "n": 2}, "n: Extra inputs are not permitted"),
        ("/v1/chat/completions", {**QUESTION, "stream": True}, "stream"),
        ("/v1/chat/completions", {**QUESTION, "max_tokens": 8000}, "above the model's context of 512"),
        ("/v1/rows", {"row": {"text": "no question"}}, "the row: "),
        ("/v1/nothing", {}, "questions go to /v1/chat/completions"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_by_name(
    generator: ModelGenerator, board: Board, client: Client, path: str, document: Any, said: str
) -> None:
    """V-05 V-06 V-11."""
    board.open(generator, [], "")
    answer = client.post(path, document)
    assert answer[0] in {400, 404}
    assert said in answer[1]["error"]["message"]


def test_each_form_of_the_result_is_loaded_alone(trained: Trained, generator: ModelGenerator) -> None:
    """V-13 V-14: the merged model without its base answers as the adapter on it; a checkpoint is that of the newest attempt."""
    merged, checkpoint = trained.find(form=Form.MERGED), trained.find(checkpoint=3)
    assert (merged.base_dir, merged.words) == (None, "the merged model of step 7")
    assert checkpoint.words == "the adapter of checkpoint 3 on pvc://models/tiny"
    assert not (checkpoint.directory / "optimizer.pt").exists()
    stored = json.loads(trained.store.get("a2/checkpoint-3/manifest.json"))["files"]
    held = (checkpoint.directory / "adapter_model.safetensors").stat().st_size
    assert held == next(each["size"] for each in stored if each["path"] == "adapter_model.safetensors")
    request = ChatRequest.model_validate(QUESTION)
    assert trained.load(form=Form.MERGED).chat(request) == generator.chat(request)
    with pytest.raises(TrainerError, match=r"has no checkpoint of step 4; it has 3"):
        trained.find(checkpoint=4)


def test_a_prompt_that_was_cut_in_its_answer_ends_where_that_begins(trained: Trained) -> None:
    """V-03: of rows in which every token is trained, half the text was kept as the prompt."""
    tokenizer = load_tokenizer(trained.find().directory)
    tokenizer.chat_template = str(tokenizer.chat_template) + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    generator = ModelGenerator(None, tokenizer, load_dataset(trained.config(), trained.store))
    question = "<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n"
    cut = SamplePrompt(split="train", prompt=f"{question}because", expected=" so")
    whole = SamplePrompt(split="train", prompt=question, expected="because so")
    later = SamplePrompt(split="train", prompt=f"{question}because so<|im_end|>\n<|im_start|>user\nan", expected="d then?")
    text = SamplePrompt(split="train", prompt="plain", expected="text")
    assert generator.as_questions([cut, whole, later, text]) == [whole, whole, whole, text]
    assert trained.load().as_questions([cut]) == [cut]


def test_prompts_are_put_as_they_were_trained(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """V-11: the system prompt and the template that the result's lineage has, whatever the server was told."""
    lineage = {"spec": {"dataset": {"uri": "s3://a/b", "promptTemplate": "Q: {prompt}\nA:"}}}
    monkeypatch.setattr(LocalStore, "get", lambda *_: json.dumps(lineage).encode())
    dataset = load_dataset(trained.config(), trained.store)
    assert (dataset.system_prompt, dataset.prompt_template) == (None, "Q: {prompt}\nA:")


@pytest.mark.parametrize(
    ("row", "more", "asked"),
    [
        ({"prompt": "why?", "completion": "so"}, {}, "why?"),
        ({"instruction": "add", "input": "1 2", "output": "3"}, {}, "add\n1 2"),
        ({"q": "why?"}, {"promptColumn": "q"}, "why?"),
        ({"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]}, {}, "why?"),
        ({"conversations": [{"from": "human", "value": "why?"}]}, {}, "why?"),
        ({"prompt": "why?", "chosen": "so", "rejected": "no"}, {}, "why?"),
        ({"chosen": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}],
          "rejected": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "no"}]}, {}, "why?"),
    ],
)  # fmt: skip
def test_a_row_of_any_format_is_a_question(generator: ModelGenerator, row: Any, more: Any, asked: str) -> None:
    """D-19 V-12: read as the training reads it; its answer need not be there."""
    question: Question = generator.read_row(RowRequest.model_validate({"row": row, **more}))
    assert question.messages is not None
    assert [(each.role, each.content) for each in question.messages] == [("user", asked)]


def test_a_server_ends_once_nobody_has_asked_for_a_while() -> None:
    """V-07: time counts from the last answer."""
    now = [0.0]
    board = Board(lambda: now[0])
    with board.answering():
        now[0] = 10_000.0
    now[0] = 10_600.0
    assert board.wait_until_idle(600) == 1


def test_the_verb_loads_answers_and_ends(trained: Trained) -> None:
    """V-07 V-01: exit 0 once idle; what cannot be loaded ends it as a user error that says why."""
    environment, port = trained.pod.environment(), free_port()
    shutil.rmtree(trained.pod.directory / "work", ignore_errors=True)
    file = trained.pod.directory / "run.json"
    file.write_text(trained.config(idle_seconds=0, port=port).to_json())
    assert run_serve(environment) == 0, trained.pod.message.message
    assert trained.pod.message.result == {"answered": 0}
    file.write_text(trained.config(idle_seconds=0, port=port, checkpoint=5).to_json())
    assert run_serve(environment) == EXIT_USER_ERROR
    assert "has no checkpoint of step 5; it has 3" in trained.pod.message.message
    file.write_text(trained.config(idle_seconds=0, port=port, device="gpu").to_json())
    if not torch.cuda.is_available():
        assert run_serve(environment) == EXIT_USER_ERROR
        assert "GPU" in trained.pod.message.message
