"""Makes the outputs a plan asks for."""

from __future__ import annotations

import logging

from finetune_trainer.outputs.gguf_file import write_gguf
from finetune_trainer.outputs.merge import load_final, save_merged
from finetune_trainer.outputs.plan import OutputsPlan, OutputsResult
from finetune_trainer.outputs.probe import answer_prompts, logits_of, processor_of, save_logits
from finetune_trainer.prepare.tokenizer import load_tokenizer

log = logging.getLogger(__name__)


def make(plan: OutputsPlan) -> OutputsResult:
    """Reference logits and answers of the final weights, then the merged model, then one GGUF file per format.

    Raises :class:`TrainerError` for models that cannot be merged or written.
    """
    model = load_final(plan.base_dir, plan.final_dir, runs_code=plan.runs_code)
    tokenizer = load_tokenizer(plan.final_dir, runs_code=plan.runs_code)
    save_logits(logits_of(model, tokenizer, processor_of(plan.base_dir or plan.final_dir, plan.final_dir)), plan.reference)
    answers = answer_prompts(model, tokenizer, plan.prompts)
    if plan.base_dir is not None and (plan.merged_wanted or plan.gguf):
        log.info("merging the adapter into %s", plan.base_dir.name)
        save_merged(model, plan.final_dir, plan.model_dir)
    del model
    for kind in plan.gguf:
        log.info("writing %s", plan.gguf_file(kind).name)
        write_gguf(plan.model_dir, plan.gguf_file(kind), kind, plan.name)
    return OutputsResult(answers=answers)
