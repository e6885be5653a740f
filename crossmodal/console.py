"""What every command prints with: tables for people, JSON for programs, errors with a code."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from crossmodal.errors import CrossmodalError

FAILED, USAGE = 1, 2  # exit statuses

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

# rich leaves colors out when NO_COLOR is set or the output is not a terminal.
# In a pipe, lines are not broken at the 80 columns that rich would assume.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any, indent: int | None = 2, where: IO[str] | None = None) -> None:
    """One JSON document on standard output, or `where`; one line without `indent`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        text = json.dumps(value, indent=indent)  # half a character can only be written escaped
    where = where or sys.stdout
    where.write(text + "\n")
    where.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table whose numbers are aligned to the right."""
    headed = any(columns)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=headed)
    cells = [[_cell(value) for value in row] for row in rows]
    for i, column in enumerate(table.columns):
        if cells and all(row[i].replace(".", "").isdigit() for row in cells):
            column.justify = "right"
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # data is never markup
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def shown_time(at: float) -> str:
    """Seconds since the epoch as a date and time, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def errors_to_exit_status() -> Iterator[None]:
    """Print an error as one line with its code, and exit: 2 for bad usage, 1 for all else."""
    try:
        yield
    except CrossmodalError as e:
        stderr.print(f"[bold red]error[/] [dim]{e.code}[/]", end=" ")
        stderr.print(str(e), markup=False)
        raise typer.Exit(USAGE if e.caused_by_request else FAILED) from e


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """A progress bar with one task, id 0; invisible where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=stderr, transient=True,
        disable=not stderr.is_terminal,
    ) as bar:  # fmt: skip
        bar.add_task(label, total=total)
        yield bar
