"""The key under which prepared rows are kept: equal contents and parameters, equal key; never a path or a time."""

from __future__ import annotations

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import digest
from finetune_trainer.prepare.purpose import purpose_of
from finetune_trainer.protocol import PREPARATION_VERSION


def prepared_key(
    spec: FineTuneJobSpec,
    *,
    tokenizer_digest: str,
    dataset_digest: str,
    has_vision: bool = False,
    code_version: int = PREPARATION_VERSION,
) -> str:
    """Return the key of the rows a spec would prepare.

    ``tokenizer_digest`` and ``dataset_digest`` are digests of file contents (the latter covers the evaluation data too). Where
    ``maxSeqLength`` is 0 the context comes from the config.json beside the tokenizer, so the digest must cover that file as well.
    """
    dataset = spec.dataset
    parts = [(part.weight, part.max_samples, part.format, part.prompt_column, part.output_column) for part in dataset.parts]
    return digest(
        {
            "version": code_version,
            "purpose": purpose_of(spec),
            "tokenizer": tokenizer_digest,
            "dataset": dataset_digest,
            "parts": parts,
            "evalUri": dataset.eval_uri is not None,
            "evalRatio": dataset.eval_ratio,
            "maxSamples": max(dataset.max_samples, 0),
            "onError": dataset.on_error,
            "wrapping": [dataset.system_prompt, dataset.prompt_template, dataset.chat_template],
            "assistantOnlyLoss": dataset.assistant_only_loss,
            "lengths": [dataset.prompt_max_length, dataset.content_max_length, spec.training.max_seq_length],
            "packing": dataset.packing,
            "seed": spec.training.seed,
            **({"imageMaxPixels": dataset.image_max_pixels} if has_vision else {}),
        }
        | ({"trainRatio": dataset.train_ratio} if dataset.train_ratio is not None else {})
        | ({"longContext": True} if spec.training.max_seq_length == 0 and spec.training.long_context else {})
        | ({"later": True} if dataset.lazy_tokenize else {})
        | ({"excerpt": True} if dataset.streaming else {})
    )
