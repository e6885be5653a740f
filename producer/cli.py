"""The commands that submit jobs and ask about them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.console import (
    FAILED,
    Json,
    console,
    errors_to_exit_status,
    print_json,
    print_table,
    progress,
)
from crossmodal.errors import CrossmodalError, InvalidImage, InvalidSetting, ResultTimeout
from crossmodal.jobs.record import Failure, JobResult, JobState
from producer.client import Client
from producer.handle import JobHandle, result_of

NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait; for ever by default.")
]
JobId = Annotated[str, typer.Argument(metavar="ID")]


@contextmanager
def _client() -> Iterator[Client]:
    with errors_to_exit_status(), Client() as client:
        yield client


def txt2img(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many pictures, 1 to 16.")] = 1,
    seed: Annotated[int | None, typer.Option(help="The first picture's seed.")] = None,
    temperature: Annotated[float, typer.Option(help="0 draws the likeliest picture.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; with -n > 1, NAME-0.png …")
    ] = None,
    no_wait: NoWait = False,
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Draw pictures of a prompt."""
    with _client() as client:
        job = client.txt2img(prompt, count=count, seed=seed, temperature=temperature)
        if no_wait:
            _print_ids([job], as_json)
            return
        result = _wait([job], client, timeout_s)[0].result()
        files = [] if out is None else _write(client, result, out)
        if as_json:
            print_json(result.model_dump(mode="json") | {"files": [str(f) for f in files]})
            return
        _print_result(result)
        for file in files:
            console.print(f"wrote {file}", markup=False, soft_wrap=True)


def img2txt(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Files to caption.")],
    count: Annotated[int, typer.Option("-n", "--count", help="Captions each, 1 to 5.")] = 1,
    beam_width: Annotated[int, typer.Option(help="Captions searched among, 1 to 10.")] = 4,
    no_wait: NoWait = False,
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Caption pictures. A file that cannot be captioned is reported, the others are."""
    with _client() as client:
        submitted = _submit_files(client, images, count, beam_width)
        if not no_wait:
            with suppress(ResultTimeout):  # who has not ended says so in its row
                _wait([job for job in submitted if isinstance(job, JobHandle)], client, timeout_s)
        rows = [
            _caption_row(client, path, job, ended=not no_wait)
            for path, job in zip(images, submitted, strict=True)
        ]
        _print_captions(rows, as_json)
        if any(row["failure"] is not None for row in rows):
            raise typer.Exit(FAILED)


def _submit_files(
    client: Client, paths: list[Path], count: int, beam_width: int
) -> list[JobHandle | CrossmodalError]:
    """The job of each file, or what is wrong with it.

    After an error that is no file's own the rest is not tried; it is raised if no job was made.
    """
    found: list[JobHandle | CrossmodalError] = []
    for i, path in enumerate(paths):
        try:
            found.append(client.img2txt(path, count=count, beam_width=beam_width))
        except InvalidImage as e:
            found.append(e)
        except CrossmodalError as e:
            if not any(isinstance(one, JobHandle) for one in found):
                raise
            return found + [e] * (len(paths) - i)
    return found


def _caption_row(
    client: Client, path: Path, submitted: JobHandle | CrossmodalError, *, ended: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(path), "job": None, "captions": [], "failure": None}
    if isinstance(submitted, CrossmodalError):
        return row | {"failure": Failure.of(submitted).model_dump()}
    row["job"] = submitted.id
    if not ended:
        return row
    try:
        captions = result_of(client.record(submitted.id)).captions
    except CrossmodalError as e:
        return row | {"failure": Failure.of(e).model_dump()}
    return row | {"captions": [caption.model_dump() for caption in captions]}


def _print_captions(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    for row in rows:
        if not row["captions"] and row["failure"] is None:
            console.print(f"{row['file']}: {row['job']}", markup=False, soft_wrap=True)
        for caption in row["captions"]:
            console.print(f"{row['file']}: {caption['text']}", markup=False, soft_wrap=True)
        if (failure := row["failure"]) is not None:
            console.print(
                f"{row['file']}: {failure['code']}: {failure['message']}",
                markup=False, soft_wrap=True,
            )  # fmt: skip


def status(job_id: JobId, as_json: Json = False) -> None:
    """Where a job is on its way: state, attempt, place in the queue, likely wait."""
    with _client() as client:
        found = client.job(job_id).status()
        if as_json:
            print_json(found.model_dump(mode="json"))
            return
        rows = [(k, v) for k, v in found.model_dump(mode="json").items() if v is not None]
        if found.failure is not None:
            rows[-1] = ("failure", f"{found.failure.code}: {found.failure.message}")
        print_table(("", ""), rows)


def wait(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID…")],
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Wait until jobs have ended; exit status 0 when all of them succeeded."""
    with _client() as client:
        jobs = _wait([client.job(i) for i in job_ids], client, timeout_s)
        states = {job.id: client.record(job.id).state for job in jobs}
        if as_json:
            print_json(states)
        else:
            print_table(("job", "state"), states.items())
        if any(state is not JobState.SUCCEEDED for state in states.values()):
            raise typer.Exit(FAILED)


def result(job_id: JobId, timeout_s: Timeout = 0.0, as_json: Json = False) -> None:
    """What a job made; does not wait unless --timeout says so."""
    with _client() as client:
        job = client.job(job_id)
        found = job.result(timeout_s)
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            _print_result(found)


def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel a job that has not ended; exit status 1 when it had."""
    with _client() as client:
        state = client.job(job_id).cancel()
        if as_json:
            print_json({"id": job_id, "state": state})
        else:
            console.print(f"{job_id} {state}")
        if state is not JobState.CANCELED:
            raise typer.Exit(FAILED)


def queue(as_json: Json = False) -> None:
    """Depth, running jobs, oldest wait and workers of each queue."""
    with _client() as client:
        queues = client.queues()
        serving = client.workers()
        workers = {q.queue: [w.name for w in serving if q.queue in w.queues] for q in queues}
        if as_json:
            print_json([q.model_dump(mode="json") | {"workers": workers[q.queue]} for q in queues])
            return
        print_table(
            ("queue", "depth", "running", "oldest wait (s)", "succeeded", "failed", "workers"),
            [
                (q.queue, q.depth, q.running, q.oldest_wait_s, q.finished.get("succeeded", 0),
                 q.finished.get("failed", 0), ", ".join(workers[q.queue]) or "none")
                for q in queues
            ],
        )  # fmt: skip


def _wait(jobs: list[JobHandle], client: Client, timeout_s: float | None) -> list[JobHandle]:
    with progress("waiting", len(jobs)) as bar:
        for _ in client.as_completed(jobs, timeout_s):
            bar.advance(0)  # type: ignore[arg-type]
    return jobs


def _write(client: Client, found: JobResult, out: Path) -> list[Path]:
    """Write a result's pictures to `out`, or to numbered files beside it."""
    many = len(found.images) > 1
    paths = [out.with_stem(f"{out.stem}-{i}") if many else out for i in range(len(found.images))]
    for image, path in zip(found.images, paths, strict=True):
        try:
            path.write_bytes(client.read(image))
        except OSError as e:
            raise InvalidSetting(f"{path} cannot be written: {e}") from e
    return paths


def _print_ids(jobs: list[JobHandle], as_json: bool) -> None:
    if as_json:
        print_json([{"id": job.id} for job in jobs])
        return
    for job in jobs:
        console.print(job.id)


def _print_result(found: JobResult) -> None:
    rows: list[tuple[str, Any]] = [("job", found.job)]
    rows += [("image", f"{i.key} ({i.width} × {i.height})") for i in found.images]
    rows += [("caption", f"{c.text} ({c.log_probability:.2f})") for c in found.captions]
    if found.seed is not None:
        rows.append(("seed", found.seed))
    if found.unknown_words:
        near = found.suggestions
        words = (f"{w} (nearest: {near[w]})" if w in near else w for w in found.unknown_words)
        rows.append(("unknown words", ", ".join(words)))
    rows.append(("total", f"{found.timings.total_s:.3f} s"))
    print_table(("", ""), rows)
