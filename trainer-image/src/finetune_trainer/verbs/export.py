"""``export``: merged model, GGUF files, answers and a push, made of the final weights in a pod without GPUs.

What is complete stays: ``final/export.json`` names it with the digest of the final manifest it was made from, so that another try makes
only the rest. The store comes first, the hub last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_DONE, FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import ANSWERS, EXPORTS, FINAL_PREFIX, PROMPTS, Exported, ExportManifest, SamplePrompt
from finetune_api.exports import exports_of
from finetune_api.models.output import GgufType
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.card import CARD, has_processor, model_card
from finetune_trainer.outputs.plan import ENV_OUTPUTS_PLAN, OutputsPlan, OutputsResult
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.store.transfer import download_files, upload_files
from finetune_trainer.supervisor.environment import PodEnvironment, job_store
from finetune_trainer.supervisor.logs import LogArchive
from finetune_trainer.supervisor.worker_env import available_cpus, process_environment
from finetune_trainer.supervisor.workers import Process
from finetune_trainer.verbs.answer import Answer, run_verb
from finetune_trainer.verbs.push import Pushed, push
from finetune_trainer.verbs.results import Final, complete_exports, fetch_base, find_final

logger = logging.getLogger(__name__)
MERGED, GGUF = "merged", "gguf"
PROMPT_LIST = TypeAdapter(list[SamplePrompt])


def run_export(environment: PodEnvironment) -> int:
    """Export and answer; returns the exit code."""
    return run_verb(environment, lambda config: Exporter(config, environment, job_store(config, environment)).run())


class Exporter:
    """One try of an export."""

    def __init__(self, config: RunConfig, environment: PodEnvironment, store: Store) -> None:
        self._config, self._environment, self._store = config, environment, store
        self._output = config.spec.output
        self._work = environment.work_dir / "export"
        self._final_dir, self._merged_dir, self._gguf_dir = self._work / "final", self._work / MERGED, self._work / GGUF

    def run(self) -> Answer:
        """Make what is missing, keep it, push it."""
        wanted = exports_of(self._config.spec)
        final = find_final(self._store, "export")
        done = complete_exports(self._store, final)
        missing = [kind for kind in self._gguf_types(wanted) if not any(each.name == kind for each in done)]
        needs_merged = MERGED in wanted and not any(each.type == MERGED for each in done)
        if missing or needs_merged:
            done = self._make(final, done, missing, needs_merged=needs_merged)
        kept = [each for each in done if each.type in wanted and (each.type == MERGED or each.name in self._gguf_types(wanted))]
        sees = has_processor(file.path for file in final.manifest.files)
        card = model_card(self._config, final.manifest, final.pinned, kept, sees=sees)
        for prefix in {each.prefix for each in kept}:  # not beside the final weights: their manifest has the digest of their own card
            self._store.put(f"{prefix}/{CARD}", card)
        pushed = push(self._config, self._environment, self._local_copies(final, kept), card) if "push" in wanted else None
        return self._answer(kept, pushed)

    # --- what there is ---

    def _gguf_types(self, wanted: Sequence[str]) -> list[GgufType]:
        return list(self._output.export.gguf.quant) if GGUF in wanted else []

    # --- making ---

    def _make(self, final: Final, done: list[Exported], missing: list[GgufType], *, needs_merged: bool) -> list[Exported]:
        """Run both processes, then keep their outputs one by one."""
        shutil.rmtree(self._work, ignore_errors=True)
        for directory in (self._merged_dir, self._gguf_dir):
            directory.mkdir(parents=True)
        download_files(self._store, FINAL_PREFIX, final.manifest.files, self._final_dir)
        is_whole = final.manifest.kind == "full"
        plan = OutputsPlan(
            step="make",
            name=self._config.job.name,
            base_dir=None if is_whole else fetch_base(self._config, self._environment, final.pinned),
            final_dir=self._final_dir,
            model_dir=self._final_dir if is_whole else self._merged_dir,
            gguf_dir=self._gguf_dir,
            gguf=missing,
            merged_wanted=needs_merged,
            prompts=self._prompts(),
            runs_code=self._config.spec.model.trust_remote_code,
            reference=self._work / "reference.npz",
            result=self._work / "result.json",
        )
        made = self._process(plan)
        if made.answers:
            document = [answer.model_dump(by_alias=True) for answer in made.answers]
            self._store.put(ANSWERS, json.dumps(document, indent=1, ensure_ascii=False).encode())
        checked = self._process(plan.model_copy(update={"step": "check"}))
        if needs_merged:
            names = sorted(path.name for path in self._merged_dir.iterdir() if path.is_file())
            done = self._keep(
                final, done, Exported(type="merged", prefix=f"{FINAL_PREFIX}/{MERGED}", files=[]), self._merged_dir, names, checked
            )
        for kind in missing:
            names = [plan.gguf_file(kind).name]
            done = self._keep(
                final, done, Exported(type="gguf", name=kind, prefix=f"{FINAL_PREFIX}/{GGUF}", files=[]), self._gguf_dir, names, checked
            )
        return done

    def _keep(
        self, final: Final, done: list[Exported], made: Exported, directory: Path, names: Sequence[str], checked: OutputsResult
    ) -> list[Exported]:
        """Upload an output; it exists once the export's manifest names it."""
        files = upload_files(self._store, directory, made.prefix, names)
        complete = made.model_copy(update={"files": files, "max_delta": checked.deltas.get(made.name or made.type)})
        kept = [*(each for each in done if (each.type, each.name) != (made.type, made.name)), complete]
        manifest = ExportManifest(contract_version=CONTRACT_VERSION, source=final.digest, exported=kept)
        self._store.put(EXPORTS, manifest.to_json().encode())
        logger.info("%s %s is complete in the store", made.type, made.name)
        return kept

    def _prompts(self) -> list[SamplePrompt]:
        """As many prompts of each split as asked for; none where the training left none."""
        try:
            prompts = PROMPT_LIST.validate_json(self._store.get(PROMPTS))
        except (ObjectNotFoundError, ValidationError):
            return []
        return [
            prompt
            for split in ("train", "eval")
            for prompt in [each for each in prompts if each.split == split][: self._output.export.samples]
        ]

    def _process(self, plan: OutputsPlan) -> OutputsResult:
        """Run one step in a process of its own. Raises the class it names, or Unknown when it just died."""
        plan.result.unlink(missing_ok=True)
        file = self._work / f"plan-{plan.step}.json"
        file.write_text(plan.to_json(), encoding="utf-8")
        common = process_environment(
            os.environ, work_dir=self._environment.work_dir, link=self._work / "no-link", threads=available_cpus(), device="cpu"
        )
        archive = LogArchive(self._work / f"{plan.step}.log")
        try:
            process = Process(
                (*self._environment.program, "outputs"),
                {**common, ENV_OUTPUTS_PLAN: str(file)},
                cwd=self._environment.work_dir,
                label=plan.step,
                rank=None,
                archive=archive,
            )
            code = process.wait()
        finally:
            archive.close()
        result = OutputsResult.model_validate_json(plan.result.read_bytes()) if plan.result.is_file() else None
        if code == EXIT_DONE and result is not None:
            return result
        if result is not None and result.failure_class is not None:
            raise TrainerError(result.failure_class, result.message)
        if code == -9:
            raise TrainerError(FailureClass.OOM_KILLED, "The export ran out of memory: raise output.export.memory.")
        last = next((line for line in reversed(process.last_lines) if line.strip()), "no output")
        raise TrainerError(FailureClass.UNKNOWN, f"Exporting ({plan.step}) failed with code {code}: {last.strip()[:500]}")

    # --- telling ---

    def _local_copies(self, final: Final, kept: Sequence[Exported]) -> Path:
        """What belongs into a repository, as one directory: whole weights (or the adapter) at its top, GGUF files beside them."""
        directory = self._work / "push"
        shutil.rmtree(directory, ignore_errors=True)
        merged = next((each for each in kept if each.type == MERGED), None)
        if merged is None:
            download_files(self._store, FINAL_PREFIX, [file for file in final.manifest.files if file.path != CARD], directory)
        else:
            download_files(self._store, merged.prefix, merged.files, directory)
            adapter = [file for file in final.manifest.files if file.path.startswith("adapter_")]
            download_files(self._store, FINAL_PREFIX, adapter, directory / "adapter")
        for each in kept:
            if each.type == GGUF:
                download_files(self._store, each.prefix, each.files, directory)
        return directory

    def _answer(self, kept: Sequence[Exported], pushed: Pushed | None) -> Answer:
        outputs = [self._describe(each) for each in kept]
        words = [each.name or each.type for each in kept]
        if pushed is not None:
            outputs.append(
                {"type": "hub", "name": pushed.repo_id, "uri": pushed.url, "sizeBytes": pushed.size_bytes, "digest": pushed.commit}
            )
            words.append(f"push to {pushed.repo_id}")
        return Answer(
            f"Exported: {', '.join(words) or 'nothing was asked for'}.", {"outputs": outputs}, final_uri=self._store.url(FINAL_PREFIX)
        )

    def _describe(self, exported: Exported) -> dict[str, object]:
        single = exported.files[0] if len(exported.files) == 1 else None
        key = f"{exported.prefix}/{single.path}" if single else exported.prefix
        whole = hashlib.sha256("".join(f"{file.sha256} {file.path}\n" for file in exported.files).encode()).hexdigest()
        described: dict[str, object] = {
            "type": exported.type,
            "name": exported.name,
            "uri": self._store.url(key),
            "sizeBytes": exported.size_bytes,
            "digest": single.sha256 if single else whole,
        }
        return described if exported.max_delta is None else {**described, "maxDelta": float(f"{exported.max_delta:.3g}")}
