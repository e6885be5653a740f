"""A collector of traces: a real OTLP/HTTP server that keeps the spans it receives."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

FAILED = 2  # OTLP's status code


@dataclass(frozen=True)
class SpanSeen:
    """One span, with ids in hexadecimal as in a traceparent."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began: int
    ended: int
    attributes: dict[str, Any]
    links: frozenset[str]
    failed: bool
    resource: dict[str, Any]

    @property
    def pid(self) -> int:
        return int(self.resource["process.pid"])


class Collector(ThreadingHTTPServer):
    """A server that keeps all received bytes, and parses spans from them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[bytes] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes a process send its spans here, soon after they end."""
        url = f"http://127.0.0.1:{self.server_address[1]}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    @property
    def spans(self) -> list[SpanSeen]:
        return [
            _seen(span, resource)
            for body in list(self.received)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans
            for resource in [_values(group.resource.attributes)]
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def of(self, trace: str) -> list[SpanSeen]:
        return [span for span in self.spans if span.trace == trace]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        self.server.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _seen(span: Any, resource: dict[str, Any]) -> SpanSeen:
    return SpanSeen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        frozenset(link.span_id.hex() for link in span.links),
        span.status.code == FAILED,
        resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, args=(0.05,), daemon=True).start()
        yield collector
        collector.shutdown()
