"""Output of a job's result: printed, as JSON, and its pictures written to files."""

from pathlib import Path
from typing import Any

from crossmodal.console import print_json, print_table, say
from crossmodal.errors import InvalidParams, OutputNotWritable, StorageUnavailable
from crossmodal.jobs.record import JobResult
from producer.client import Client
from producer.commands.targets import check_target, write_pictures
from producer.handle import result_of


def check_out(client: Client, out: Path, stored: str, count: int = 1) -> None:
    """Check, before waiting for a job, that its pictures can be read and written.

    Raises `InvalidSetting` or `ExtraMissing` where `count` pictures of the format `stored` could
    not be written, or where the object store cannot be opened.
    """
    check_target(out, count, stored)
    _ = client.storage  # opens it


def show_result(client: Client, job_id: str, out: Path | None, as_json: bool) -> None:
    """Print an ended job's result, and write its pictures to `out`.

    Raises the error of a job without a result, `StorageUnavailable` and `OutputNotWritable`.
    """
    found = result_of(client.record(job_id))
    files = [] if out is None else _write(client, found, out)
    if as_json:
        print_json(found.model_dump(mode="json") | {"files": [str(file) for file in files]})
        return
    print_table(("", ""), rows_of(found))
    for file in files:
        say(f"wrote {file}")


def _write(client: Client, found: JobResult, out: Path) -> list[Path]:
    if not found.images:
        raise InvalidParams(f"-o {out}: job {found.job} made no pictures: leave out -o")
    try:
        return write_pictures([(client.read(i), i.media_type) for i in found.images], out)
    except StorageUnavailable as e:
        raise type(e)(
            f"{e}; once it can be read, `crossmodal result {found.job} -o FILE` writes what job "
            f"{found.job} made"
        ) from e
    except OutputNotWritable as e:
        raise OutputNotWritable(
            f"{e}; what job {found.job} made is kept: `crossmodal result {found.job} -o FILE`"
        ) from e


def rows_of(found: JobResult) -> list[tuple[str, Any]]:
    """Return a result as rows of label and value."""
    rows: list[tuple[str, Any]] = [("job", found.job)]
    rows += [("image", f"{i.key} ({i.width} × {i.height})") for i in found.images]
    rows += [("caption", f"{c.text} ({c.log_probability:.2f})") for c in found.captions]
    if found.seed is not None:
        rows.append(("seed", found.seed))
    rows += [("warning", text) for text in found.warnings]
    rows.append(("total", f"{found.timings.total_s:.3f} s"))
    return rows
