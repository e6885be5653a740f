"""Output of all commands: lines and tables for people, JSON for programs, coded errors.

Data is printed verbatim: no markup, no emoji names, and only tables in a terminal are wrapped. With
`--json`, standard output gets one document or nothing, and standard error one object per line: an
error has `code`, `message` and `retryable`, a note has `note`.
"""

import codecs
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO, TextIOWrapper
from typing import IO, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from crossmodal import errors
from crossmodal.errors import CrossmodalError, Interrupted, OutputNotWritable, described
from crossmodal.machine import denied

FAILED, USAGE, INTERRUPTED, UNREAD = 1, 2, 130, 141  # exit statuses
NOT_USAGE = (  # caused by the request, but no fault in the command line
    errors.ApiKeyNotFound,
    errors.CheckpointMismatch,
    errors.InvalidData,
    errors.DeadLetterNotFound,
    errors.DeliveryNotFound,
    errors.Forbidden,
    errors.IdempotencyConflict,
    errors.InvalidMessage,
    errors.JobNotFound,
    errors.Unauthorized,
    errors.WrongState,
)
OF_ENVIRONMENT = (errors.BrokerRefused, errors.BrokerNotTrusted, errors.StorageNotWritable)
BAD_USAGE = "bad_usage"  # the code of errors in options and arguments
# Click's, or that of Typer's copy of Click.
UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])
WIDE = 100_000  # characters: a table in a pipe is never broken

for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:  # the process was started with it closed
        setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - until the process ends

# rich omits colors if NO_COLOR is set or the output is not a terminal.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
stderr = Console(stderr=True, **_PLAIN)


class _Mode:
    """The output mode of the running command."""

    as_json = False


def _remember(value: bool) -> bool:
    _Mode.as_json = value
    return value


Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON instead of text.", is_eager=True, callback=_remember),
]


def print_what_is_no_text() -> None:
    """Print undecodable file names as their bytes, and escape other unencodable characters."""
    codecs.register_error("crossmodal", _as_bytes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="crossmodal")


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:  # a lone surrogate, or a character that the terminal's encoding lacks
        return codecs.lookup_error("backslashreplace")(error)


def say(text: str) -> None:
    """Print a line to standard output, verbatim."""
    _print_line(text, sys.stdout)


def note(text: str) -> None:
    """Print a note to standard error, apart from the command's output."""
    if _Mode.as_json:
        print_json({"note": text}, indent=None, where=sys.stderr)
    else:
        _print_line(text, sys.stderr)


def print_error(error: CrossmodalError) -> None:
    """Print an error as one line to standard error."""
    _print_error(error.code, str(error), error.retryable)


def _print_error(code: str, message: str, retryable: bool = False) -> None:
    if _Mode.as_json:
        said = {"code": code, "message": message, "retryable": retryable}
        print_json(said, indent=None, where=sys.stderr)
    else:
        stderr.print(Text.assemble(("error", "bold red"), " ", (code, "dim"), " ", message))


def print_json(value: Any, indent: int | None = 2, where: IO[str] | None = None) -> None:
    """Print a JSON document to standard output or `where`, on one line if `indent` is None."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        text = json.dumps(value, indent=indent)  # lone surrogates can only be written escaped
    _print_line(text, where or sys.stdout)


def _print_line(text: str, where: IO[str]) -> None:
    try:
        where.write(text + "\n")
        where.flush()
    except BrokenPipeError as e:  # the reader has closed it, as `head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), where.fileno())  # for later lines
        if where is sys.stdout:
            raise SystemExit(UNREAD) from e
    except OSError as e:  # its disk is full
        if where is sys.stdout:
            _end_unwritable(e)


def _end_unwritable(error: OSError) -> NoReturn:
    """Exit, because standard output cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is buffered
    _print_error(OutputNotWritable.code, f"standard output cannot be written: {described(error)}")
    raise SystemExit(FAILED) from error


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "") -> None:
    """Print a table with numbers aligned right, or `empty` if it has no rows."""
    headed = any(columns)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=headed)
    cells = [[_cell(value) for value in row] for row in rows]
    if empty and not cells:
        say(empty)
        return
    for i, column in enumerate(table.columns):
        if cells and all(row[i].replace(".", "").isdigit() for row in cells):
            column.justify = "right"
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # data is never markup
    for line in _rendered(table).removesuffix("\n").split("\n"):
        say(line.rstrip())


def _rendered(table: Table) -> str:
    """Return a table as text, as wide as the terminal. A pipe gets whole lines."""
    text, is_terminal = StringIO(), sys.stdout.isatty()
    width = None if is_terminal else WIDE
    Console(file=text, width=width, force_terminal=is_terminal, **_PLAIN).print(
        table, soft_wrap=False
    )
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def shown_time(at: float) -> str:
    """Format seconds since the epoch as a date and time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def begin(args: list[str]) -> None:
    """Set the error format from a command's raw arguments, until its options are parsed."""
    _Mode.as_json = "--json" in args


def run(command: Any, args: list[str], prog_name: str) -> NoReturn:
    """Run a loaded command and exit; report wrong options and arguments as coded errors."""
    try:
        status = command.main(args, prog_name=prog_name, standalone_mode=False)
    except UsageError as e:
        if message := _plain(e):
            path = e.ctx.command_path if e.ctx else prog_name  # type: ignore[attr-defined]
            refuse(f"{message.rstrip('.')}: see `{path} --help`")
        raise SystemExit(USAGE) from e
    except typer.Abort as e:
        raise SystemExit(INTERRUPTED) from e
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EIO) or e.filename is not None:
            raise
        _end_unwritable(e)  # of a command's help
    raise SystemExit(status or 0)


def _plain(error: Exception) -> str:
    """Return the message of a usage error without pydantic's phrases."""
    from pydantic import ValidationError  # slow to import, and rarely needed

    message = str(error.format_message())  # type: ignore[attr-defined]
    if isinstance(error.__cause__, ValidationError):
        given = error.__cause__.errors()[0]["input"]
        message = message.replace(": Value error, ", ": ", 1)
        message = message.replace(": Input should be", f": {given!r} should be", 1)
        message = message.partition(", unable to parse")[0]
    return message


def refuse(message: str) -> NoReturn:
    """Print a usage error and exit."""
    _print_error(BAD_USAGE, message)
    raise SystemExit(USAGE)


@contextmanager
def errors_to_exit_status() -> Iterator[None]:
    """Print an error as one line with its code, and exit with `exit_status`."""
    try:
        yield
    except (CrossmodalError, OSError, RuntimeError) as e:
        error = e if isinstance(e, CrossmodalError) else denied(e)
        if error is None:
            raise
        print_error(error)
        raise typer.Exit(exit_status(error)) from e


def exit_status(error: CrossmodalError) -> int:
    """Return 2 for a wrong command line or environment, 130 after Ctrl-C, else 1."""
    if isinstance(error, Interrupted):
        return INTERRUPTED
    is_usage = error.caused_by_request and not isinstance(error, NOT_USAGE)
    return USAGE if is_usage or isinstance(error, OF_ENVIRONMENT) else FAILED


@contextmanager
def progress(label: str, total: int, *, in_bytes: bool = False) -> Iterator[Progress]:
    """Show a progress line with one task, id 0; hidden if standard error is no terminal."""
    text = TextColumn("{task.description}", markup=False)
    columns: tuple[ProgressColumn, ...] = (SpinnerColumn(), text, TimeElapsedColumn())
    if total > 1:
        done = DownloadColumn() if in_bytes else MofNCompleteColumn()
        columns = (
            text,
            BarColumn(),
            done,
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
    with Progress(
        *columns,
        console=stderr,
        transient=True,
        redirect_stdout=False,
        disable=not stderr.is_terminal,
    ) as bar:
        bar.add_task(label, total=total)
        yield bar
