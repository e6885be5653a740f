"""Traces: where the time of a job went, in all the processes that had it (OpenTelemetry).

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set and `crossmodal-jobs[otel]` is installed. Where it is
off, a span costs nothing and nothing of OpenTelemetry is loaded. What goes from process to
process is a W3C traceparent. Spans say ids, numbers and codes, never what a job was about.
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

FLUSH_S = 2.0  # that an ending process waits for a collector
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})")
SAMPLED = 0x01

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool

_tracer: Any = None  # OpenTelemetry's, where tracing is on


class Span:
    """What a stretch of work can tell about itself; nobody listens where tracing is off."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        if self._span is not None:
            self._span.set_attributes(_named(attributes))

    def fail(self, code: str) -> None:
        """Say that the work has failed; why in detail may quote the request, and stays here."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", code)


_UNTRACED = nullcontext(Span())


@cache
def prepare() -> bool:
    """Whether the environment asks for traces; loads what they take, for all forks to come."""
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or _is_off():
        return False
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), None)
    if protocol not in (None, "http/protobuf"):
        log.warning("there are no traces: OTLP is spoken as http/protobuf, not as %s", protocol)
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as e:
        log.warning("%s is set, but there are no traces: %s. %s", endpoint, e, remedy("otel"))
        return False
    return True


def _is_off() -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def configure(role: str) -> None:
    """Have this process's spans sent, if the environment asks for it; `flush` before it ends.

    To be called in each process after its fork, whose threads do not come with it. A provider
    that the program has set already is left as it is, and used.
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
    """Spans in batches to the collector; sampling and limits are read from the environment."""
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
    """Send the spans that are left; a collector that does not answer holds nobody up for long."""
    if _tracer is None:
        return
    from opentelemetry import trace

    provider: Any = trace.get_tracer_provider()
    sending = threading.Thread(target=provider.force_flush, name="flush", daemon=True)
    sending.start()
    sending.join(FLUSH_S)


def is_on() -> bool:
    """Whether this process has spans to send."""
    return _tracer is not None


def current() -> str | None:
    """The traceparent of the active span, also of one that an app opened by its own means."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    return _traceparent(trace.get_current_span())


def checked(value: object) -> str | None:
    """`value`, if it is a traceparent: it may come from anywhere."""
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


def is_sampled(traceparent: str) -> bool:
    """Whether those who sent it record their spans; false of what is no traceparent."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found is not None and bool(int(found[1], 16) & SAMPLED)


def span(
    name: str, parent: str | None = None, *, kind: Kind = "internal", **attributes: Attribute
) -> AbstractContextManager[Span]:
    """A stretch of work, within the active span or that of the traceparent `parent`.

    One that raises has failed, with the error's code.
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
    """Note a stretch of work that is over (seconds since the epoch); its traceparent.

    Without a `parent` it begins a trace of its own. With a `code` it has failed.
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
    """Where a span with this parent begins; empty of what is no traceparent."""
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
