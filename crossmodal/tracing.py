"""OpenTelemetry traces of a job across all processes that handle it.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set and `crossmodal-jobs[otel]` is installed. If off, a
span costs nothing and OpenTelemetry is not imported. Processes pass on a W3C traceparent. Spans
contain ids, numbers and codes, never the content of a job.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

from crossmodal.errors import CrossmodalError
from crossmodal.extras import remedy

log = logging.getLogger(__name__)

FLUSH_S = 2.0  # max wait of an ending process for a collector
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})")
SAMPLED = 0x01

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool

_tracer: Any = None  # OpenTelemetry's, if tracing is on


class Span:
    """A span of work; does nothing if tracing is off."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        if self._span is not None:
            self._span.set_attributes(_named(attributes))

    def fail(self, code: str) -> None:
        """Mark the span as failed with `code` only: a message may quote the request."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", code)


_UNTRACED = nullcontext(Span())


@cache
def prepare() -> bool:
    """Return whether the environment enables traces; import OpenTelemetry before any fork."""
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or _is_off():
        return False
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), None)
    if protocol not in (None, "http/protobuf"):
        log.warning(
            "no traces are exported: OTLP is supported as http/protobuf, not as %s", protocol
        )
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as e:
        log.warning("%s is set, but no traces are exported: %s. %s", endpoint, e, remedy("otel"))
        return False
    return True


def _is_off() -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def configure(role: str) -> None:
    """Start to send this process's spans, if the environment enables it; `flush` before exit.

    Call it in each process after its fork, because threads do not survive a fork. Uses the tracer
    provider that the program has already set, if any.
    """
    global _tracer
    if not prepare():
        return
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _new_provider(role)
        trace.set_tracer_provider(provider)
    _tracer = provider.get_tracer("crossmodal")


def _new_provider(role: str) -> Any:
    """Return a provider that exports in batches; sampling and limits are from the environment."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about: dict[str, str | int] = {"process.pid": os.getpid()}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        about["service.name"] = f"crossmodal-{role}"
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def flush() -> None:
    """Send the remaining spans; wait at most `FLUSH_S` for the collector."""
    if _tracer is None:
        return
    from opentelemetry import trace

    provider: Any = trace.get_tracer_provider()
    sending = threading.Thread(target=provider.force_flush, name="flush", daemon=True)
    sending.start()
    sending.join(FLUSH_S)


def is_on() -> bool:
    """Return whether this process records spans."""
    return _tracer is not None


def current() -> str | None:
    """Return the traceparent of the active span, which may be the app's own."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    return _traceparent(trace.get_current_span())


def checked(value: object) -> str | None:
    """Return `value` if it has the form of a traceparent, else None: it comes from outside."""
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


def is_sampled(traceparent: str) -> bool:
    """Return the sampled flag of a traceparent; False if it is malformed."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found is not None and bool(int(found[1], 16) & SAMPLED)


def span(
    name: str, parent: str | None = None, *, kind: Kind = "internal", **attributes: Attribute
) -> AbstractContextManager[Span]:
    """Open a span, a child of the active span or of the traceparent `parent`.

    If the block raises, the span fails with the error's code.
    """
    if _tracer is None:
        return _UNTRACED
    return _active(name, parent, kind, attributes)


@contextmanager
def _active(
    name: str, parent: str | None, kind: Kind, attributes: dict[str, Attribute]
) -> Iterator[Span]:
    from opentelemetry import trace

    started = _tracer.start_span(
        name, _context(parent) if parent else None, trace.SpanKind[kind.upper()], _named(attributes)
    )
    # An exception's text may quote a prompt: only its code goes into the span.
    with trace.use_span(
        started, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        span = Span(started)
        try:
            yield span
        except BaseException as e:
            span.fail(e.code if isinstance(e, CrossmodalError) else type(e).__name__)
            raise


def record(
    name: str,
    began: float,
    ended: float,
    parent: str | None = None,
    *,
    links: Sequence[str] = (),
    code: str | None = None,
    **attributes: Attribute,
) -> str | None:
    """Record a finished span (times in seconds since the epoch); return its traceparent.

    Without a `parent` it starts a new trace. With a `code` it has failed.
    """
    if _tracer is None:
        return None
    from opentelemetry import trace

    started = _tracer.start_span(
        name,
        _context(parent),
        attributes=_named(attributes),
        start_time=int(began * 1e9),
        links=[
            trace.Link(trace.get_current_span(_context(link)).get_span_context()) for link in links
        ],
    )
    if code is not None:
        Span(started).fail(code)
    started.end(int(ended * 1e9))
    return _traceparent(started)


def _context(traceparent: str | None) -> Any:
    """Return the context of a parent; empty if the traceparent is not valid."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent} if traceparent else {}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _traceparent(span: Any) -> str | None:
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"crossmodal.{name}": value for name, value in attributes.items()}
