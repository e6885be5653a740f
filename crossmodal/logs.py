"""Structured logs: a JSON line per event, or columns for people.

Modules log through `logging`. An entry point calls `configure` once; `context` adds fields to all
lines logged within it, and `extra` to one line.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import WatchedFileHandler
from types import TracebackType
from typing import Any

from structlog.contextvars import bind_contextvars, merge_contextvars, reset_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

from crossmodal import tracing
from crossmodal.settings import Settings

FIELDS = ("device", "worker", "job", "attempt", "task", "code")  # allowed in `extra`
FIRST = ("timestamp", "level", "logger", "process", "pid", *FIELDS)
LAST = ("event", "exception")


def configure(
    settings: Settings, *, level: int | str | None = None, file: str | None = None, **bound: str
) -> None:
    """Log this process and its forks to standard error, or to a `file`.

    The fields `bound` go into every line: the process's role and owner.
    """
    handler = WatchedFileHandler(file) if file else logging.StreamHandler()
    colors = not file and sys.stderr.isatty()
    handler.setFormatter(
        ProcessorFormatter(
            processors=_machine() if is_json(settings, file) else _human(colors),
            foreign_pre_chain=[_add(bound), *_COMMON],
        )
    )
    logging.basicConfig(handlers=[handler], level=level or settings.log_level, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def is_json(settings: Settings, file: str | None = None) -> bool:
    """Return whether logs are JSON: by default everywhere except at a terminal."""
    if settings.log_format == "auto":
        return bool(file) or not sys.stderr.isatty()
    return settings.log_format == "json"


@contextmanager
def context(**fields: str | int) -> Iterator[None]:
    """Add these fields to all lines logged in the block."""
    tokens = bind_contextvars(**fields)
    try:
        yield
    finally:
        reset_contextvars(**tokens)


def _add(bound: dict[str, str]) -> Processor:
    def add(_: Any, __: str, line: EventDict) -> EventDict:
        line.update(bound, pid=line["_record"].process)
        return line

    return add


def _add_trace(_: Any, __: str, line: EventDict) -> EventDict:
    """Add the ids of the active trace and span, if any."""
    if (traceparent := tracing.current()) is not None:
        _, line["trace_id"], line["span_id"], _ = traceparent.split("-")
    return line


def _in_order(_: Any, __: str, line: EventDict) -> EventDict:
    """Put the common fields first and the long ones last."""
    first = {name: line.pop(name) for name in FIRST if name in line}
    last = {name: line.pop(name) for name in LAST if name in line}
    return {**first, **line, **last}


_COMMON: list[Processor] = [
    add_log_level,
    add_logger_name,
    merge_contextvars,
    ExtraAdder(FIELDS),
    _add_trace,
]


def _machine() -> list[Processor]:
    stamp = TimeStamper(fmt="iso", utc=True)
    bare = ProcessorFormatter.remove_processors_meta
    return [stamp, format_exc_info, bare, _in_order, JSONRenderer()]


def _human(colors: bool) -> list[Processor]:
    # Plain, because rich's tracebacks show the values of all variables.
    columns = ConsoleRenderer(
        colors=colors, exception_formatter=plain_traceback, pad_event_to=0, sort_keys=False
    )
    stamp = TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)
    return [stamp, ProcessorFormatter.remove_processors_meta, columns]


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger().critical(
        "uncaught exception: this process exits", exc_info=(kind, error, trace)
    )
