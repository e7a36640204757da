"""The scene before a real Prometheus: as a history at its own pace, or played fast over HTTP and scraped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from finetune_monitoring.view import View
from tests.support.prometheus_server import serve, write_history
from tests.support.scene import DURATION, Scene, cast

HISTORY_EPOCH = datetime(2026, 11, 21, 6, 0, tzinfo=UTC).timestamp()
HISTORY_SCRAPE_SECONDS = 30.0
LIVE_SCRAPES = 24
LIVE_SCRAPE_SECONDS = 0.5


@contextmanager
def history(directory: Path) -> Iterator[View]:
    """Three hours of the scene, scraped every :data:`HISTORY_SCRAPE_SECONDS`."""
    scene = Scene(cast(), HISTORY_EPOCH)

    def snapshots() -> Iterator[tuple[float, str, dict[str, str], bytes]]:
        for number in range(int(DURATION / HISTORY_SCRAPE_SECONDS) + 1):
            scene.advance(number * HISTORY_SCRAPE_SECONDS)
            for job, labels, page in scene.pages():
                yield HISTORY_EPOCH + scene.t, job, labels, page

    write_history(directory, snapshots())
    with serve(directory) as prometheus:
        yield View(prometheus, HISTORY_EPOCH, HISTORY_EPOCH + DURATION, HISTORY_SCRAPE_SECONDS)


@contextmanager
def live(directory: Path) -> Iterator[View]:
    """The scene played over HTTP, a step at each scrape of the operator, ending about now."""
    begun = time.time()
    with _stage(Scene(cast(), begun + LIVE_SCRAPES * LIVE_SCRAPE_SECONDS - DURATION)) as (port, ended):
        jobs = ["finetune-operator", *(f"{actor.name}-{pod}" for actor in cast() for pod in range(actor.pods))]
        scrapes: list[dict[str, Any]] = [
            {"job_name": job, "metrics_path": f"/{job}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job in jobs
        ]
        with serve(directory, scrapes, interval=f"{LIVE_SCRAPE_SECONDS * 1000:.0f}ms") as prometheus:
            assert ended.wait(timeout=20 * LIVE_SCRAPES * LIVE_SCRAPE_SECONDS), "Prometheus scrapes"
            yield View(prometheus, begun, time.time(), LIVE_SCRAPE_SECONDS, points=60)


@contextmanager
def _stage(scene: Scene) -> Iterator[tuple[int, threading.Event]]:
    """Serve the scene's pages, each below the name of its scrape job; a pod that is gone answers 404."""
    scene.advance(0)
    shown = {"pages": {job: page for job, _, page in scene.pages()}}
    ended = threading.Event()

    def step() -> None:
        if scene.t >= DURATION:
            ended.set()
            return
        scene.advance(min(DURATION, scene.t + DURATION / LIVE_SCRAPES))
        shown["pages"] = {job: page for job, _, page in scene.pages()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job = self.path.strip("/")
            if job == "finetune-operator":
                step()
            page = shown["pages"].get(job)
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            """Not on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, ended
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
