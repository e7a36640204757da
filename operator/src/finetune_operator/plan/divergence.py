"""A run that diverged and goes back (``retry.onDivergence: rewind``): the trainer decides and bounds it, the operator starts it."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.models.status import Phase
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.ending import close_attempt
from finetune_operator.plan.failure import Culprit, read_message
from finetune_operator.plan.observed import Pod
from finetune_operator.plan.pause import active_ask

REASON = "Rewinding"


def goes_back(pods: Sequence[Pod]) -> bool:
    """Whether pod 0 left word that the next attempt goes back from a divergence."""
    answers = (read_message(pod.termination_message) for pod in pods if pod.index == 0)
    return any(answer is not None and answer.will_rewind for answer in answers)


def go_back(draft: Draft, culprit: Culprit) -> None:
    """Start the next run at once. It is no restart that is counted: it trains something else, at most twice."""
    close_attempt(draft, culprit.failure_class, exit_code=culprit.exit_code)
    if active_ask(draft.status) is not None or draft.desire is not Desire.RUN:
        return
    draft.change(retry=draft.status.retry.model_copy(update={"next_start_at": draft.now_text}))
    draft.show(Phase.STARTING, REASON, culprit.message)
    draft.say(REASON, culprit.message, kind="Warning", key=str(draft.status.run))
