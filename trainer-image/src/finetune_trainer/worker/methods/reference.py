"""What methods with a reference model have in common."""

from __future__ import annotations

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from finetune_trainer.errors import configuration_error
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.model import load_model
from finetune_trainer.worker.session import Session


def load_reference(request: Request, uri: str | None) -> PreTrainedModel | None:
    """Load the reference model that the job names; None leaves it to TRL, which takes the base model as it was.

    Raises :class:`TrainerError` (ModelError) for a model that cannot be loaded or has another vocabulary.
    """
    directory = request.session.plan.reference_dir
    if uri is None or directory is None:
        return None
    session, model = request.session, request.material.model
    reference = load_model(directory, request.formats, request.device, placed=not session.sharing.places_model)
    own, other = (vocabulary(candidate) for candidate in (model, reference))
    if own != other:
        raise configuration_error(
            f"{session.spec.method}.referenceModel: {uri} has a vocabulary of {other} tokens and model.uri one of {own}: "
            "log probabilities of different tokens cannot be compared"
        )
    return reference.eval()


def vocabulary(model: PreTrainedModel | PeftModel) -> int:
    """Return the rows of a model's embedding, of which ZeRO 3 leaves none in the weight itself."""
    weight = model.get_input_embeddings().weight
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def disables_dropout(session: Session) -> bool:
    """Model and reference are compared without dropout, unless the job asks for it."""
    adapter = session.spec.adapter
    return adapter.type == "full" or adapter.dropout == 0


def refuse_adapter_on_head(request: Request) -> None:
    """Raise ConfigurationError for an adapter on the output head, which these methods read without it (a PEFT file may name one)."""
    if isinstance(request.material.model.get_output_embeddings(), BaseTunerLayer):
        raise configuration_error(
            f"adapter.peftConfig: method {request.session.spec.method} cannot train an adapter on the output head; leave lm_head out"
        )
