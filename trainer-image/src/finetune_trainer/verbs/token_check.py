"""The part of preflight that says whether the token for a hub is one, also where it only reads (X-03)."""

from __future__ import annotations

from typing import Final

from finetune_api.contract.env import HF_TOKEN_KEY
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import TokenFacts
from finetune_api.contract.run_config import RunConfig
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.context import SourceContext
from finetune_trainer.sources.hub import hub_api
from finetune_trainer.verbs.findings import Findings

NOT_A_TOKEN: Final = 401
NOT_SAID: Final = "NotSaid"


def check_token(config: RunConfig, context: SourceContext, found: Findings) -> dict[str, str]:
    """Ask the hub whose token ``secrets.huggingface`` holds, where something is read from a hub.

    A hub that does not answer, or does not know the question, is told in ``found`` and refuses nothing: what is read of it is tried by
    other checks. Raises :class:`TrainerError` (HuggingFaceAuth) when it says that this is no token: it would refuse public files as well.
    """
    token = context.hub_secret.read(HF_TOKEN_KEY)
    if token is None or config.offline or '"hf://' not in config.spec.model_dump_json():
        return {}
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    name = f"key {HF_TOKEN_KEY} of Secret {context.hub_secret.name}"
    try:
        user = str(hub_api(context).whoami().get("name", ""))
    except (HTTPError, ValueError) as error:
        code = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if code != NOT_A_TOKEN:
            said = f"answers {code}" if code is not None else f"does not answer ({type(error).__name__})"
            found.token = TokenFacts(status="Unknown", reason=NOT_SAID, message=f"The hub {said} when asked whose token the {name} is.")
            return {}
        message = (
            f"secrets.huggingface.secretRef: the {name} is not a valid token, the hub answers {code}: it may have expired or been revoked; "
            "put a new one into the Secret"
        )
        found.token = TokenFacts(status="False", reason="Refused", message=f"{message}.")
        raise TrainerError(FailureClass.HUGGING_FACE_AUTH, f"{message}.") from error
    found.token = TokenFacts(status="True", reason="Checked", message=f"The {name} is a token of {user}.")
    return {}
