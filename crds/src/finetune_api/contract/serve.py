"""Trying what was trained: what the verb ``serve`` is told, and how it is asked over HTTP.

The server listens on the pod's loopback address alone: who may forward a port of the pod may ask it, nobody else. ``POST
/v1/chat/completions`` and ``/v1/completions`` take and give what the OpenAI API calls so, as far as the models below go; ``GET
/v1/samples`` lists prompts of the job's data, ``POST /v1/rows`` reads a row of any data as the training would, ``GET /healthz`` says what
the server is doing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune_api.contract.base import ContractModel
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import SamplePrompt

COMPONENT_SERVE: Final = "serve"
"""Value of the label for components on the Job that serves."""
SERVE_PORT: Final = 8080
IDLE_SECONDS: Final = 600
"""How long nobody has to ask until a server ends by itself."""
REPETITION_PENALTY: Final = 1.1
"""Above 1: small models fall into repeating themselves (V-11)."""
MAX_NEW_TOKENS: Final = 256
MOST_NEW_TOKENS: Final = 8192
SHOWN_SAMPLES: Final = 5
HEALTH_PATH: Final = "/healthz"
CHAT_PATH: Final = "/v1/chat/completions"
COMPLETION_PATH: Final = "/v1/completions"
SAMPLES_PATH: Final = "/v1/samples"
ROWS_PATH: Final = "/v1/rows"


class Form(StrEnum):
    """Which form of the result answers."""

    FINAL = "final"
    """As trained: an adapter on its base model, or a whole model."""
    MERGED = "merged"
    """The merged model of the export, alone."""


class ServeConfig(ContractModel):
    """What one server loads; mounted at :data:`finetune_api.contract.env.RUN_CONFIG_PATH`."""

    contract_version: int
    run: RunConfig
    """Of the job: where its model and its store are. What it says of the training itself is not used."""
    form: Form = Form.FINAL
    checkpoint: int | None = None
    """Step of a checkpoint to load instead of the final weights; of the newest attempt that has one."""
    device: Literal["cpu", "gpu"] = "cpu"
    port: int = SERVE_PORT
    idle_seconds: int = IDLE_SECONDS


class ServerState(StrEnum):
    """What a server is doing (P-13)."""

    LOADING = "Loading"
    IDLE = "Idle"
    GENERATING = "Generating"


class Health(ContractModel):
    """Answer of ``/healthz``."""

    state: ServerState
    doing: str = ""
    """While it loads: what, in words."""
    weights: str = ""
    """What answers, in words; empty until it is found."""


class Sampling(BaseModel):
    """How an answer is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0: greedy, the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the probability that tokens are drawn from."""


class Preset(StrEnum):
    """A way to draw answers that has a name (V-02)."""

    DETERMINISTIC = "deterministic"
    BALANCED = "balanced"
    CREATIVE = "creative"


PRESETS: Final = {
    Preset.DETERMINISTIC: Sampling(),
    Preset.BALANCED: Sampling(temperature=0.7, top_p=0.9),
    Preset.CREATIVE: Sampling(temperature=1.0, top_p=0.95),
}


class Request(Sampling):
    """What both kinds of questions have."""

    model: str | None = None
    """Clients send a name; there is one model."""
    max_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] = MAX_NEW_TOKENS
    """Tokens of the answer at most."""
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = REPETITION_PENALTY
    """1: none."""
    stream: Literal[False] = False
    """Answers come whole."""


class ChatMessage(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(Request):
    """A conversation to go on with: system prompt, prompt template and chat template are those of the training."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]


class CompletionRequest(Request):
    """A text to go on with as it is, special tokens written out."""

    prompt: Annotated[str, Field(min_length=1)]


class RowRequest(ContractModel):
    """A row of a dataset, to be read as a training would."""

    row: dict[str, object]
    format: str | None = None
    prompt_column: str | None = None


class Question(ContractModel):
    """A prompt to ask by chat (``messages``) or as a text with its special tokens (``prompt``)."""

    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    expected: str = ""
    """What the data says to it; empty where it says nothing."""


class Samples(ContractModel):
    """Prompts of the training data, and of the evaluation data behind them."""

    prompts: list[SamplePrompt] = []
