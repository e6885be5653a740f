"""A receiver of webhooks that records each post."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from crossmodal.local.valkey import free_port


@dataclass
class Receiver:
    """A server that answers with `status` once `may_answer` is set; every `fails_every`-th post
    gets 503."""

    port: int
    status: int = 204
    fails_every: int = 0
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    may_answer: Event = field(default_factory=Event)
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.told.append(({k.lower(): v for k, v in self.headers.items()}, body))
                receiver.may_answer.wait(60)
                self.send_response(receiver.next_status())
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.may_answer.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def next_status(self) -> int:
        fails = self.fails_every and len(self.told) % self.fails_every == 0
        return 503 if fails else self.status

    def stop(self) -> None:
        self.may_answer.set()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def bodies(self, job_id: str) -> list[dict[str, Any]]:
        return [body for body in self._all() if body["data"]["job"] == job_id]

    def jobs(self) -> list[str]:
        """Return the job of each post, in order of arrival."""
        return [body["data"]["job"] for body in self._all()]

    def _all(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.told]


@contextmanager
def listening() -> Iterator[Receiver]:
    receiver = Receiver(free_port())
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
