"""Metrics of the cluster, read from the ledger at each scrape, and the gateway's own."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossmodal.jobs.calls import Steps, call
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.record import JobState, QueueStatus, WorkerInfo
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.metrics import RUNS_S, STORAGE
from producer.calls import ClientCalls
from producer.gateway.problems import CLIENT_GONE, STREAM

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_FAILURE = ("succeeded", "canceled", "expired")

HTTP = CollectorRegistry(auto_describe=True)
"""The metrics of the gateway's own requests."""
REQUESTS = Counter(
    "crossmodal_http_requests_total",
    "Requests answered, or whose event stream has begun.",
    ["method", "route", "status"],
    registry=HTTP,
)
REQUEST_TIME = Histogram(
    "crossmodal_http_request_seconds",
    "From a request to the end of its answer; event streams are left out.",
    ["route"],
    registry=HTTP,
    buckets=RUNS_S,
)
STREAMS = Gauge("crossmodal_open_event_streams", "Event streams that are open.", registry=HTTP)

# `_created` series are of no use: Prometheus detects counter resets.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Figures(NamedTuple):
    """The ledger's figures of queues, workers, webhooks and dead letters."""

    queues: list[QueueStatus]
    workers: list[WorkerInfo]
    webhooks: dict[str, int]
    dead_letters: int


class Up(NamedTuple):
    """Whether Redis and the object store take writes."""

    broker: bool = True
    store: bool = True


@call
def figures(calls: ClientCalls) -> Steps[Figures]:
    """Read the figures of the cluster's metrics."""
    queues = yield from calls.queues()
    workers = yield from calls.workers()
    webhooks = yield from Deliveries(calls.settings).counts()
    letters = yield from DeadLetters(calls.settings, calls.ledger).count()
    return Figures(queues, workers, webhooks, letters)


def render(found: Figures | None, up: Up, accept: str = "") -> tuple[bytes, str]:
    """Return all metrics as a body and its content type: OpenMetrics if `accept` requests it.

    Without figures, as when Redis does not answer, there are no metrics of the queues.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # its version is not a number
        encode, content_type = choose_encoder("")
    return encode(_All(ClusterCollector(found, up), HTTP, STORAGE, REGISTRY)), content_type


class _All(Collector):
    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()


class ClusterCollector(Collector):
    """A collector of metrics of the whole installation."""

    def __init__(self, found: Figures | None, up: Up) -> None:
        self._found, self._up = found, up

    def collect(self) -> Iterable[Metric]:
        found = self._found
        up = [
            _gauge("broker_up", "Whether Redis answers and takes writes.", self._up.broker),
            _gauge("store_up", "Whether the object store takes writes.", self._up.store),
        ]
        if found is None:
            return up
        return [
            *up,
            *_jobs(found.queues),
            *_queues(found.queues, found.workers),
            *_webhooks(found.webhooks),
            _gauge("dead_letters", "Dead letters that are kept.", found.dead_letters),
        ]


def _jobs(queues: list[QueueStatus]) -> Iterator[Metric]:
    """Yield the counters of jobs, which count since the ledger began."""
    submitted = _counter("jobs_submitted", "Jobs that were accepted.", "task")
    redelivered = _counter("jobs_redelivered", "Attempts after a job's first.", "task")
    finished = _counter(
        "jobs_finished",
        "Jobs that ended; `code` says why one failed.",
        "task",
        "queue",
        "state",
        "code",
    )
    for status in queues:
        name = status.queue  # the `task` label, too
        submitted.add_metric([name], status.submitted)
        redelivered.add_metric([name], status.redelivered)
        for state in NO_FAILURE:
            finished.add_metric([name, name, state, ""], status.finished.get(state, 0))
        for code, count in status.failures.items():
            finished.add_metric([name, name, JobState.FAILED, code], count)
    yield from (submitted, finished, redelivered)


def _queues(queues: list[QueueStatus], workers: list[WorkerInfo]) -> Iterator[Metric]:
    """Yield the gauges of each queue."""
    depth = _gauge_of_queue("queue_depth", "Jobs that wait.")
    running = _gauge_of_queue("queue_running", "Jobs that run.")
    oldest = _gauge_of_queue(
        "queue_oldest_wait_seconds", "How long the oldest waiting job has waited."
    )
    paused = _gauge_of_queue("queue_paused", "1 while paused: no waiting job is started.")
    serving = _gauge_of_queue("workers", "Celery workers that serve the queue.")
    waiting = _gauge_of_queue(
        "workers_waiting", "Those that take no jobs until their object store answers."
    )
    for status in queues:
        name = [status.queue]
        depth.add_metric(name, status.depth)
        running.add_metric(name, status.running)
        oldest.add_metric(name, status.oldest_wait_s)
        paused.add_metric(name, status.paused)
        serves = [worker for worker in workers if status.queue in worker.queues]
        serving.add_metric(name, len(serves))
        waiting.add_metric(name, sum(bool(worker.waits_for) for worker in serves))
    yield from (depth, running, oldest, paused, serving, waiting)


def _webhooks(counts: dict[str, int]) -> Iterator[Metric]:
    tries = _counter(
        "webhook_deliveries",
        "Delivery attempts of webhooks, by outcome: delivered, retried or failed.",
        "outcome",
    )
    for outcome in ("delivered", "failed", "retried"):
        tries.add_metric([outcome], counts[outcome])
    yield tries
    yield _gauge("webhooks_pending", "Webhooks that wait to be delivered.", counts["pending"])


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"crossmodal_{name}", text, labels=labels)


def _gauge_of_queue(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"crossmodal_{name}", text, labels=["queue"])


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"crossmodal_{name}", text, value)


class CountRequests:
    """ASGI middleware that counts and times requests by the template of their route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:
            exchange.status = exchange.status or 500
            raise
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._begun = time.monotonic()
        self._is_stream = False
        self._root = scope.get("root_path", "")
        self._method = scope["method"]  # before `Heads` turns HEAD into GET

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if _is_stream(message):
                self._is_stream = True
                self._count()
                STREAMS.inc()
        await self._send(message)

    def end(self) -> None:
        if self._is_stream:
            STREAMS.dec()
        else:
            self._count()
            REQUEST_TIME.labels(self._route()).observe(time.monotonic() - self._begun)

    def _count(self) -> None:
        known = self._method if self._method in METHODS else "other"  # callers may send any
        REQUESTS.labels(known, self._route(), self.status or CLIENT_GONE).inc()

    def _route(self) -> str:
        """Return the path's template, such as `/v1/jobs/{job_id}`: it bounds the labels."""
        included = self._scope.get("fastapi", {}).get("effective_route_context")
        route = included or self._scope.get("route")  # `included` has its router's prefix
        mounted: str = self._scope.get("root_path", "")
        where: str = "unmatched" if mounted == self._root else mounted
        return getattr(route, "path", where)


def _is_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(STREAM.encode())
        for name, value in start.get("headers", ())
    )
