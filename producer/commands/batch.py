"""`crossmodal batch`: run a JSONL file of requests, write a JSONL file of results."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

import typer

from crossmodal.console import (
    FAILED,
    Json,
    errors_to_exit_status,
    note,
    print_json,
    print_table,
    progress,
)
from crossmodal.errors import Interrupted, InvalidParams, InvalidSetting, OutputNotWritable
from crossmodal.jobs.names import check_batch_id, new_job_id
from crossmodal.jobs.record import BatchStatus, ItemResult
from crossmodal.kinds.task import Task, parse_task
from producer.batches.bulk import Request
from producer.batches.jsonl import BatchFile, result_line
from producer.client import Client, CommandClient
from producer.commands.targets import write
from producer.patience import Unserved, polling

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Run many requests at once, from a file of JSON lines.",
)
LONGEST_STEM = 60  # characters, of up to four bytes
BatchId = Annotated[str, typer.Argument(metavar="ID")]


Input = Annotated[Path, typer.Argument(metavar="INPUT.jsonl")]
Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--out",
        metavar="OUTPUT.jsonl",
        help="File for the results, or - for standard output.",
    ),
]
OwnId = Annotated[
    str | None, typer.Option("--id", help="Id of the batch to resume, or of a new one.")
]
OfKind = Annotated[str | None, typer.Option(help="txt2img or img2txt, for lines without a url.")]
Images = Annotated[
    Path | None, typer.Option(help="Folder to write pictures to, as CUSTOM_ID-0.png …")
]


@app.command()
def run(
    source: Input,
    out: Output,
    batch_id: OwnId = None,
    task: OfKind = None,
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Run a file of requests; write results as they come, in any order.

    With -o -, the summary goes to standard error, also as JSON.

    With the --id of an earlier run, items that it finished are not run again.
    """
    with errors_to_exit_status(), CommandClient() as client:
        name = check_batch_id(batch_id or new_job_id())
        kind = None if task is None else parse_task(task).of_items
        file = BatchFile(source, kind, name, client.settings.max_image_bytes, client.models)
        begun = time.monotonic()
        counts = {"total": file.total, "completed": 0, "failed": 0}
        unserved = Unserved(client, lambda: {str(queue.in_bulk) for queue in tuple(file.queues)})
        if images is not None:
            _make(images)
        with (
            _goes_on(name),
            _output(out, source) as put,
            progress("items", file.total) as bar,
            polling(unserved.check),
        ):
            note(f"batch {name}: go on with it by --id {name}")
            for result in client.map_items(_requests(file), batch_id=name):
                counts["failed" if result.failure else "completed"] += 1
                put(result_line(name, result) + "\n")
                if images is not None:
                    _write_images(client, result, images)
                bar.advance(bar.task_ids[0])
        took_s = time.monotonic() - begun
        _summarize(
            name, file.only_task, counts, took_s, as_json, sys.stderr if out == "-" else sys.stdout
        )
        if counts["completed"] < counts["total"]:
            raise typer.Exit(FAILED)


@app.command()
def status(batch_id: BatchId, as_json: Json = False) -> None:
    """Show the progress of a batch."""
    with errors_to_exit_status(), CommandClient() as client:
        _print_status(client.batch(batch_id), as_json)


@app.command()
def cancel(batch_id: BatchId, as_json: Json = False) -> None:
    """Cancel the unfinished items of a batch, and refuse further ones from any sender."""
    with errors_to_exit_status(), CommandClient() as client:
        _print_status(client.cancel_batch(batch_id), as_json)


@contextmanager
def _goes_on(name: str) -> Iterator[None]:
    """Add to Ctrl-C and write errors how to resume the batch."""
    how = (
        f"the same command with --id {name} resumes the batch, "
        f"`crossmodal batch cancel {name}` cancels it"
    )
    try:
        yield
    except KeyboardInterrupt as e:
        raise Interrupted(f"the messages sent so far go on: {how}") from e
    except OutputNotWritable as e:
        raise OutputNotWritable(f"{e}; {how}") from e


def _requests(file: BatchFile) -> Iterator[Request | ItemResult]:
    """Yield the items of the file. Raises `InvalidParams` on a read error."""
    try:
        yield from file.items()
    except OSError as e:
        raise InvalidParams(f"{file.path} cannot be read: {e.strerror or e}") from e


@contextmanager
def _output(name: str, source: Path) -> Iterator[Callable[[str], object]]:
    """Yield a function that appends text to the file of results."""
    if name == "-":
        yield sys.stdout.write
        return
    if Path(name).exists() and Path(name).samefile(source):
        raise InvalidSetting(f"--out {name} is the file of requests: give another")
    try:
        file = Path(name).open("w", encoding="utf-8")  # noqa: SIM115 - what fails later is another error
    except OSError as e:
        raise InvalidSetting(f"--out {name} cannot be written: {e.strerror or e}") from e

    def put(text: str) -> None:
        with _written(name):
            file.write(text)

    try:
        yield put
    finally:
        with _written(name):
            file.close()


@contextmanager
def _written(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise OutputNotWritable(f"{name} cannot be written: {e.strerror or e}") from e


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InvalidSetting(f"--images {folder} cannot be made: {e.strerror or e}") from e
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidSetting(f"--images {folder} cannot be written: permission denied")


def _write_images(client: Client, result: ItemResult, folder: Path) -> None:
    """Write the pictures of one item; a custom id cannot lead out of the folder."""
    stem = stem_of(result)
    for i, image in enumerate(result.images):
        ending = PurePosixPath(image.key).suffix
        write(folder / f"{stem}-{i}{ending}", client.read(image), follow=False)


def stem_of(result: ItemResult) -> str:
    """Return the custom id if it is a safe file name, else a sanitized, unique one."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.custom_id)
    stem = plain.lstrip(".")[:LONGEST_STEM]
    return stem if stem == result.custom_id else f"{stem}~{result.index}"


def _summarize(
    name: str,
    task: Task | None,
    counts: dict[str, int],
    took_s: float,
    as_json: bool,
    where: IO[str],
) -> None:
    rate = round(counts["total"] / took_s, 1) if took_s else 0.0
    if as_json:
        found = {
            "id": name,
            "task": task,
            "request_counts": counts,
            "took_s": round(took_s, 3),
            "per_second": rate,
        }
        print_json(found, where=where)
        return
    note(
        f"{counts['completed']} of {counts['total']} completed, {counts['failed']} failed, "
        f"{took_s:.1f} s, {rate:g} a second"
    )


def _print_status(found: BatchStatus, as_json: bool) -> None:
    counts = {"total": found.total, "completed": found.completed, "failed": found.failed}
    task = found.task and found.task.of_items
    kind = task or "of several kinds"
    if as_json:
        print_json(
            {
                "id": found.id,
                "task": task,
                "is_done": found.is_done,
                "request_counts": counts,
                "messages": found.messages,
            }
        )
        return
    print_table(
        ("", ""),
        [
            ("batch", found.id),
            ("task", kind),
            *counts.items(),
            *((f"messages {s}", n) for s, n in found.messages.items()),
        ],
    )
