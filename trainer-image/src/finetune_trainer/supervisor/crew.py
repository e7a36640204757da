"""The processes of this pod, the socket they report on and the archive of what they print."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_api.contract.run_config import Topology
from finetune_trainer.protocol import Failed, SaveNow, Stop, WorkerPlan
from finetune_trainer.supervisor.environment import PodEnvironment
from finetune_trainer.supervisor.events import WorkerExited
from finetune_trainer.supervisor.group import StopTrigger
from finetune_trainer.supervisor.link import LinkServer, MessageHandler
from finetune_trainer.supervisor.logs import LogArchive
from finetune_trainer.supervisor.outcome import WorkerEnd
from finetune_trainer.supervisor.situation import EventQueue
from finetune_trainer.supervisor.worker_env import available_cpus, prepare_environment, process_environment, worker_environment
from finetune_trainer.supervisor.workers import Process, WorkerGroup

PLAN_FILE = "worker-plan.json"


class Crew:
    """Starts, orders and buries the ranks of one pod."""

    def __init__(
        self, environment: PodEnvironment, topology: Topology, variables: Mapping[str, str], queue: EventQueue, on_message: MessageHandler
    ) -> None:
        self._environment, self._topology = environment, topology
        self.archive = LogArchive(environment.work_dir / "logs" / f"pod-{environment.pod_index}.log")
        self._queue = queue
        self._link = LinkServer(environment.work_dir, on_message)
        self.workers = WorkerGroup(self._emit, self._link)
        self._prepare: Process | None = None
        threads = max(1, available_cpus() // topology.processes_per_replica)
        self._common = process_environment(
            variables, work_dir=environment.work_dir, link=self._link.path, threads=threads, device=topology.device
        )

    def start(self, plan: WorkerPlan) -> None:
        """Write the plan and start one worker per local rank."""
        path = self._environment.work_dir / PLAN_FILE
        path.write_text(plan.to_json(), encoding="utf-8")
        environments = [
            worker_environment(self._common, topology=self._topology, pod=self._environment.pod_index, local_rank=local_rank, plan=path)
            for local_rank in range(self._topology.processes_per_replica)
        ]
        self.workers.start([*self._environment.program, "worker"], environments, cwd=self._environment.work_dir, archive=self.archive)

    def run_prepare(self, plan: Path) -> tuple[int, Sequence[str]]:
        """Run the prepare program, whose output goes where the workers' does; returns its exit code and its last lines."""
        self._prepare = Process(
            [*self._environment.program, "prepare"],
            prepare_environment(self._common, plan=plan),
            cwd=self._environment.work_dir,
            label="prepare",
            rank=None,
            archive=self.archive,
        )
        return self._prepare.wait(self._link), self._prepare.last_lines

    def order_stop(self, trigger: StopTrigger) -> None:
        """Ask every rank to stop; one that cannot hear yet (still importing) is ended by SIGTERM."""
        met = self._link.met
        self._link.broadcast(Stop(trigger=trigger))
        self.workers.terminate([local_rank for local_rank, process in enumerate(self.workers.processes) if process.rank not in met])

    def order_save(self) -> None:
        """Ask every rank to save at the next agreed step."""
        self._link.broadcast(SaveNow())

    def show_stacks(self) -> None:
        """Have every running process write the stacks of its threads to its output."""
        self.workers.show_stacks()
        if self._prepare is not None and self._prepare.code is None:
            self._prepare.send_signal(signal.SIGUSR1)

    def ends(self, failures: Mapping[int, Failed]) -> list[WorkerEnd]:
        """What is known of each ended rank."""
        workers = self.workers
        return [
            WorkerEnd(
                rank=workers.processes[local_rank].rank or 0,
                code=event.code,
                at=event.at,
                failure=failures.get(workers.processes[local_rank].rank or 0),
                last_lines=tuple(workers.processes[local_rank].last_lines),
                was_terminated=local_rank in workers.terminated,
                was_killed=local_rank in workers.killed,
            )
            for local_rank, event in sorted(workers.exits.items())
        ]

    def close(self) -> None:
        """End everything that still runs."""
        if self._prepare is not None and self._prepare.code is None:
            self._prepare.kill_session()
        for process in self.workers.processes:
            process.kill_session()
        self._link.close()

    def _emit(self, event: WorkerExited) -> None:
        self._queue.put(event)
