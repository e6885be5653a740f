"""Structured logs: a line of JSON for each event, or columns where a person reads them.

Modules speak through `logging`. An entry point calls `configure` once; `context` adds fields to
all that is said within it, also in what it calls, and `extra` those of one line.
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

FIELDS = ("device", "worker", "job", "attempt", "task", "code")  # that `extra` may give
FIRST = ("timestamp", "level", "logger", "process", "pid", *FIELDS)
LAST = ("event", "exception")


def configure(
    settings: Settings, *, level: int | str | None = None, file: str | None = None, **bound: str
) -> None:
    """Write what this process and its forks say to standard error, or to a `file`.

    `bound` goes into every line: what the process is, and whose.
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
    """Whether logs are for machines: so they are by themselves, except at a terminal."""
    if settings.log_format == "auto":
        return bool(file) or not sys.stderr.isatty()
    return settings.log_format == "json"


@contextmanager
def context(**fields: str | int) -> Iterator[None]:
    """Put these fields into all that is said meanwhile."""
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
    """Name the span in which the line was said, if there is one."""
    if (traceparent := tracing.current()) is not None:
        _, line["trace_id"], line["span_id"], _ = traceparent.split("-")
    return line


def _in_order(_: Any, __: str, line: EventDict) -> EventDict:
    """What all lines have goes first, and what may be long goes last."""
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
    # Plain, because the tracebacks that rich draws show what all variables held.
    columns = ConsoleRenderer(
        colors=colors, exception_formatter=plain_traceback, pad_event_to=0, sort_keys=False
    )
    stamp = TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)
    return [stamp, ProcessorFormatter.remove_processors_meta, columns]


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger().critical("this process ends", exc_info=(kind, error, trace))
