"""Pod 0's side of the group: keeps the state, answers the other pods, notices when one is lost."""

from __future__ import annotations

import http.server
import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from finetune_api.contract.run_config import JobIdentity
from finetune_trainer.supervisor.group import GroupState, PodReport, StopTrigger, pod_path

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 * 1024
IDLE_SECONDS = 60.0


class GroupService:
    """State of the group and the reports of the other pods. Thread-safe."""

    def __init__(
        self, job: JobIdentity, run: int, *, pods: int, on_lost: Callable[[str], None], on_stopping: Callable[[StopTrigger], None]
    ) -> None:
        self._paths = {pod_path(job, run, pod): pod for pod in range(1, pods)}
        self._state = GroupState()
        self._reports: dict[int, PodReport] = {}
        self._told: set[int] = set()
        """Pods that got the state as it is now."""
        self._seen: dict[int, float] = {}
        self._on_lost, self._on_stopping = on_lost, on_stopping
        self._changed = threading.Condition()
        self._server: http.server.ThreadingHTTPServer | None = None

    def serve(self, port: int) -> None:
        """Listen on all addresses (the other pods come from other nodes)."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers reports with the state."""

            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                self.request.settimeout(IDLE_SECONDS)
                super().setup()

            def do_POST(self) -> None:
                service.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                """Not logged: there is one request per pod and second."""

        class Server(http.server.ThreadingHTTPServer):
            """Does not wait for its connections when it ends."""

            daemon_threads = True
            block_on_close = False

        self._server = Server(("", port), Handler)
        threading.Thread(target=self._server.serve_forever, name="group", daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Take a report, give the state."""
        pod = self._paths.get(request.path)
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(min(length, MAX_BODY_BYTES))
        if pod is None:
            _reply(request, HTTPStatus.NOT_FOUND, b'{"error": "not a pod of this run"}')
            return
        try:
            report = PodReport.model_validate_json(body)
        except ValidationError:
            _reply(request, HTTPStatus.UNPROCESSABLE_ENTITY, b'{"error": "no report"}')
            return
        self.receive(pod, report)
        with self._changed:
            state = self._state
            self._told.add(pod)
            self._changed.notify_all()
        _reply(request, HTTPStatus.OK, state.to_json().encode())

    @property
    def state(self) -> GroupState:
        """The state now."""
        with self._changed:
            return self._state

    def publish(self, **changes: Any) -> None:
        """Change the state."""
        with self._changed:
            self._state = self._state.model_copy(update=changes)
            self._told.clear()
            self._changed.notify_all()

    def receive(self, pod: int, report: PodReport) -> None:
        """Note a report; a failure or a replaced pod ends the group."""
        with self._changed:
            before = self._reports.get(pod)
            self._reports[pod] = report
            self._seen[pod] = time.monotonic()
            self._changed.notify_all()
        if before is not None and before.pod_uid != report.pod_uid:
            self._on_lost(f"pod {pod} was replaced while the group ran")
        elif report.failure and not (before and before.failure):
            self._on_lost(f"pod {pod}: {report.failure}")
        if report.stopping is not None and not (before and before.stopping):
            self._on_stopping(report.stopping)

    def wait_for_round(self, number: int, *, contact_until: float) -> dict[int, str]:
        """Wait until every pod has checked a round; returns the problems by pod.

        Raises TimeoutError that names pods never heard of by ``contact_until``; for pods that answer there is no limit, a download may
        take long.
        """
        pods = set(self._paths.values())
        with self._changed:
            while any(pod not in self._reports or self._reports[pod].round < number for pod in pods):
                never = sorted(pods - set(self._reports))
                if never and time.monotonic() > contact_until:
                    raise TimeoutError(f"pod {never[0]} never reported: is it scheduled, and may it reach this pod's group port?")
                self._changed.wait(1.0)
            return {pod: self._reports[pod].problem for pod in pods if self._reports[pod].problem}

    def headway(self) -> int:
        """What the other pods have fetched, MiB."""
        with self._changed:
            return sum(report.fetched for report in self._reports.values())

    def contacted(self) -> bool:
        """Whether every pod has reported at least once."""
        with self._changed:
            return len(self._reports) == len(self._paths)

    def silent_since(self) -> tuple[int, float] | None:
        """(pod, monotonic time of its last word) of the pod silent for longest, among those that have not left."""
        with self._changed:
            staying = [(seen, pod) for pod, seen in self._seen.items() if not self._reports[pod].has_left]
            return (min(staying)[1], min(staying)[0]) if staying else None

    def all_saw_finish(self) -> bool:
        """Whether every pod knows of the final commit."""
        with self._changed:
            return len(self._reports) == len(self._paths) and all(report.saw_finish for report in self._reports.values())

    def wait_until_told(self, seconds: float) -> None:
        """Wait until every pod has got the state as it is now, or has left; also for those never heard of, which may just be starting."""
        pods = set(self._paths.values())
        with self._changed:
            self._changed.wait_for(
                lambda: pods <= self._told | {pod for pod, report in self._reports.items() if report.has_left}, timeout=seconds
            )

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _reply(request: http.server.BaseHTTPRequestHandler, status: HTTPStatus, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
