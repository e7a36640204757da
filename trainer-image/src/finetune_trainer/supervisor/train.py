"""``finetune-trainer train``: puts the parts of a supervisor together, runs one session, leaves a termination message and an exit code."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_STOPPED
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import log_key, metrics_key
from finetune_api.contract.termination import TerminationMessage
from finetune_api.strategies import effective_strategy
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Failed, Saved, Staged, SupervisorMessage, WorkerMessage
from finetune_trainer.sources.hub import configure_hub
from finetune_trainer.store.checkpoints import RunFacts
from finetune_trainer.store.transfer import remove_stale
from finetune_trainer.supervisor import events
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.bonds import Bond, LeaderBond, MemberBond, StateFollower
from finetune_trainer.supervisor.crew import Crew
from finetune_trainer.supervisor.ending import Ending
from finetune_trainer.supervisor.environment import PodEnvironment, job_secrets, job_store, load_run_config, source_context
from finetune_trainer.supervisor.group import PodReport, pod_path
from finetune_trainer.supervisor.group_client import GroupClient
from finetune_trainer.supervisor.group_service import GroupService
from finetune_trainer.supervisor.heart import Heart
from finetune_trainer.supervisor.logs import ArchiveHandler, JsonFormatter, configure_logging
from finetune_trainer.supervisor.metrics import serve_metrics
from finetune_trainer.supervisor.outcome import Outcome, outcome_of_error
from finetune_trainer.supervisor.prepared import PrepareProcess
from finetune_trainer.supervisor.progress import Reporter
from finetune_trainer.supervisor.session import Session
from finetune_trainer.supervisor.signals import StopSignals
from finetune_trainer.supervisor.situation import EventQueue, LeaveError, run_in_background
from finetune_trainer.supervisor.startup import Inputs
from finetune_trainer.supervisor.startup_leader import LeaderStartup, contact_seconds
from finetune_trainer.supervisor.startup_member import MemberStartup
from finetune_trainer.supervisor.termination import write_termination_message
from finetune_trainer.supervisor.uploads import Uploader, UploadHooks, UploadSettings
from finetune_trainer.supervisor.usage import UsageLedger

logger = logging.getLogger(__name__)
LAST_ARCHIVE_SECONDS = 20.0
"""How long the end of a pod waits for its log to be in the store."""
LAST_ARCHIVE_SIGNALLED_SECONDS = 3.0
"""And how long when it was told to end: within what is kept of the grace period."""


def run_train(signals: StopSignals, environment: PodEnvironment, variables: Mapping[str, str]) -> int:
    """Run one attempt of one pod; returns its exit code after writing the termination message."""
    started = time.monotonic()
    try:
        config = load_run_config(environment.run_config)
    except TrainerError as error:
        return _refused(environment, error)
    formatter = configure_logging(config.spec.logging.level, run=config.run, pod=environment.pod_index)
    for directory in (environment.work_dir, environment.cache_dir):
        directory.mkdir(parents=True, exist_ok=True)
    configure_hub(environment.cache_dir, offline=config.offline)
    supervisor = Supervisor(config, environment, variables, formatter, started)
    signals.action = supervisor.signalled
    outcome = supervisor.run()
    write_termination_message(environment.termination_message, supervisor.message(outcome))
    logger.info("exit code %s: %s", outcome.exit_code, outcome.message)
    return outcome.exit_code


class Supervisor:
    """The parts of one pod's supervisor."""

    def __init__(
        self, config: RunConfig, environment: PodEnvironment, variables: Mapping[str, str], formatter: JsonFormatter, started: float
    ) -> None:
        self._config, self._environment, self._formatter = config, environment, formatter
        self._queue = EventQueue()
        self._board = Board(run=config.run, ledger=UsageLedger(started) if environment.pod_index == 0 else None)
        self._inputs = Inputs(
            config,
            environment,
            job_store(config, environment),
            job_secrets(config, environment),
            source_context(config, environment),
            self._board,
            started,
        )
        self._heart = Heart(self._inputs.store, self._board)
        self._crew = Crew(environment, config.topology, variables, self._queue, self._on_message)
        logging.getLogger().addHandler(ArchiveHandler(self._crew.archive))
        self._prepare = PrepareProcess(self._crew.run_prepare, work_dir=environment.work_dir, cache_dir=environment.cache_dir)
        self._startup, self._bond = self._leader() if environment.pod_index == 0 else self._member()
        self._session = Session(self._inputs, self._queue, self._crew, self._bond, make_uploader=self._make_uploader)
        self._reporter = self._make_reporter()

    def signalled(self) -> None:
        """SIGTERM arrived. Runs in the signal handler: only what is safe there."""
        self._queue.put(events.SignalReceived())

    def run(self) -> Outcome:
        """Start, train, end."""
        if self._environment.metrics_port is not None:
            serve_metrics(self._board, self._config.job, self._environment.metrics_port)
        if self._reporter is not None:
            self._reporter.start()
        try:
            return self._run_session()
        except Exception as error:
            logger.exception("the supervisor failed")
            return outcome_of_error(error)
        finally:
            self._close()

    def message(self, outcome: Outcome) -> TerminationMessage:
        """What is left behind for whoever looks at the dead pod."""
        progress = self._board.snapshot()
        final = self._session.now.final
        return TerminationMessage(
            contract_version=CONTRACT_VERSION,
            run=self._config.run,
            attempt=progress.attempt or None,
            pod=self._environment.pod_index,
            exit_code=outcome.exit_code,
            failure_class=outcome.failure_class,
            message=outcome.message,
            failed_rank=outcome.failed_rank,
            step=progress.step,
            checkpoint=self._board.newest_checkpoint(),
            final_uri=self._session.now.final_uri or None,
            log_lines=outcome.log_lines,
            will_rewind=self._session.now.will_rewind,
            usage=progress.usage,
            metrics=final.metrics if final else {},
            warnings=[f"{condition}: {text}" for condition, text in progress.warnings.items()],
        )

    def _run_session(self) -> Outcome:
        try:
            started = self._session.start_up(self._start)
            self._session.train(started)
            return Ending(self._session, self._queue, self._reporter, self._heart, self._attachments).conclude()
        except LeaveError as leave:
            if leave.outcome.exit_code != EXIT_STOPPED:
                self._bond.failing(leave.outcome.message)
            elif self._session.now.stop is not None and self._session.now.stop.command is not None:
                return Ending(self._session, self._queue, self._reporter, self._heart, self._attachments).leave_unstarted(leave.outcome)
            return leave.outcome

    def _start(self) -> events.Started:
        """Clear the cache of what interrupted starts left, then start."""
        for stale in remove_stale(self._environment.cache_dir):
            logger.info("removed %s, left by a start that was interrupted", stale)
        return self._startup()

    def _leader(self) -> tuple[Callable[[], events.Started], Bond]:
        """Start-up and tie of pod 0."""
        config, environment = self._config, self._environment
        service = GroupService(
            config.job,
            config.run,
            pods=config.topology.replicas,
            on_lost=lambda reason: self._queue.put(events.GroupLost(reason)),
            on_stopping=lambda trigger: self._queue.put(events.GroupStopping(trigger)),
        )
        if config.topology.replicas > 1:
            service.serve(environment.group_port)
        timeout = contact_seconds(config.spec.distributed.timeout_seconds)
        startup = LeaderStartup(self._inputs, service, self._prepare, self._heart, contact_seconds=timeout, on_attempt=self._claimed)
        return startup.run, LeaderBond(service)

    def _member(self) -> tuple[Callable[[], events.Started], Bond]:
        """Start-up and tie of every other pod."""
        config, environment = self._config, self._environment
        path = pod_path(config.job, config.run, environment.pod_index)
        client = GroupClient(
            f"http://{config.topology.master_addr}:{environment.group_port}{path}",
            PodReport(pod=environment.pod_index, pod_uid=environment.pod_uid),
            first_contact_seconds=contact_seconds(config.spec.distributed.timeout_seconds),
            on_state=StateFollower(self._queue).follow,
            on_lost=lambda reason: self._queue.put(events.GroupLost(reason)),
        )
        client.start()
        return MemberStartup(self._inputs, client, on_attempt=self._claimed).run, MemberBond(client)

    def _make_reporter(self) -> Reporter | None:
        """Reporter of pod 0; local runs have none."""
        if self._config.progress is None or self._environment.pod_index != 0:
            return None
        return Reporter(
            self._config.progress,
            self._board,
            token=self._environment.progress_token,
            ca=self._environment.progress_ca,
            on_command=lambda command: self._queue.put(events.CommandReceived(command, time.monotonic())),
            on_superseded=lambda reason: self._queue.put(events.Superseded(reason)),
        )

    def _make_uploader(self, started: events.Started) -> Uploader:
        config, environment, spec = self._config, self._environment, self._config.spec
        world_size = config.topology.world_size
        facts = RunFacts(
            attempt=started.plan.attempt,
            pod=environment.pod_index,
            pods=config.topology.replicas,
            world_size=world_size,
            kind=spec.adapter.type,
            strategy=effective_strategy(spec.distributed.strategy, started.plan.pinned.strategy, world_size),
            global_batch=self._inputs.global_batch,
            parent=started.parent,
            rewinds=tuple(started.plan.rewinds),
        )
        settings = UploadSettings(
            staging_dir=environment.work_dir / "staging",
            output_dir=environment.output_dir,
            ranks=self._inputs.ranks,
            keep_last=spec.checkpoint.keep_last,
            keep_last_remote=spec.checkpoint.keep_last_remote,
            keeps_steady=spec.retry.on_divergence == "rewind",
        )
        hooks = UploadHooks(self._queue.put, self._attachments_of_save, self._session.skipped, self._heart.reached)
        return Uploader(self._inputs.store, facts, settings, self._board, hooks)

    def _claimed(self, attempt: int) -> None:
        self._formatter.attempt = attempt
        self._board.update(attempt=attempt)

    def _on_message(self, rank: int | None, message: WorkerMessage) -> SupervisorMessage | None:
        """Runs in a worker's link thread: a save is put aside there and then, everything else is the session's."""
        answer: SupervisorMessage | None = None
        if isinstance(message, Saved) and self._session.uploader is not None:
            self._session.uploader.accept(message)
            answer = Staged(step=message.step)
        if isinstance(message, Failed) and rank is None:
            self._prepare.failure = message
        self._queue.put(events.MessageReceived(rank, message))
        return answer

    def _attachments(self) -> dict[str, bytes]:
        """Metrics (pod 0) and log of this pod, as they are now."""
        attempt = self._board.snapshot().attempt
        documents = {log_key(attempt, self._environment.pod_index): self._crew.archive.content()}
        metrics = self._session.metrics_file
        if metrics is not None and self._environment.pod_index == 0 and metrics.is_file():
            documents[metrics_key(attempt)] = metrics.read_bytes()
        return documents

    def _attachments_of_save(self) -> dict[str, bytes]:
        """The same beside a checkpoint; the heartbeat knows of every step whose row goes up: should the pod die, they count as lost."""
        documents = self._attachments()
        rows = documents.get(metrics_key(self._board.snapshot().attempt), b"")
        end = rows.rfind(b"\n")
        if end >= 0:
            self._heart.reached(json.loads(rows[rows.rfind(b"\n", 0, end) + 1 : end])["step"])
        return documents

    def _archive_last(self) -> None:
        """Put metrics and log into the store as they are in the end, whatever the end is."""
        if not self._board.snapshot().attempt:
            return
        seconds = LAST_ARCHIVE_SECONDS if self._session.now.signalled_at is None else LAST_ARCHIVE_SIGNALLED_SECONDS
        store = self._inputs.store.with_patience(seconds)

        def upload() -> None:
            for key, content in self._attachments().items():
                store.put(key, content)

        thread = run_in_background("last log", upload, lambda _error: None)
        thread.join(seconds)

    def _close(self) -> None:
        """Tell the last news, end what still runs."""
        if self._session.uploader is not None:
            self._session.uploader.abandon()
        self._crew.close()
        self._archive_last()
        self._heart.close()
        if self._reporter is not None:
            self._reporter.close()
        self._bond.close()


def _refused(environment: PodEnvironment, error: TrainerError) -> int:
    """End of a pod that cannot read its run config."""
    configure_logging("info", run=0, pod=environment.pod_index)
    logger.error("%s", error.message)
    message = TerminationMessage(
        contract_version=CONTRACT_VERSION,
        run=0,
        pod=environment.pod_index,
        exit_code=error.exit_code,
        failure_class=error.failure_class,
        message=error.message,
    )
    write_termination_message(environment.termination_message, message)
    return error.exit_code
