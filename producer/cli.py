"""The commands that submit jobs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.console import FAILED, Json, errors_to_exit_status, print_json, say
from crossmodal.errors import CrossmodalError, InvalidImage, InvalidSetting, ResultTimeout
from crossmodal.jobs.record import Failure
from producer.client import Client, CommandClient
from producer.handle import JobHandle, result_of
from producer.outcome import check_out, show_result
from producer.patience import interruptible, wait_for

NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait; for ever if none."),
]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="FILE", help="Write a .png, .jpg or .webp; many as "
                 "NAME-0.png …"),
]  # fmt: skip


@contextmanager
def opened() -> Iterator[Client]:
    """A client, whose errors end the command."""
    with errors_to_exit_status(), CommandClient() as client:
        yield client


def txt2img(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=16, help="How many pictures.")
    ] = 1,
    seed: Annotated[int | None, typer.Option(help="The first picture's seed.")] = None,
    temperature: Annotated[float, typer.Option(help="0 draws the likeliest picture.")] = 1.0,
    out: Out = None,
    no_wait: NoWait = False,
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Draw pictures of a prompt."""
    with opened() as client:
        if out is not None and no_wait:
            raise InvalidSetting(
                f"-o {out} and --no-wait: the picture is not there yet, take it later by "
                "`crossmodal result ID -o FILE`"
            )
        if out is not None:
            check_out(client, out, count)
        job = client.txt2img(prompt, count=count, seed=seed, temperature=temperature)
        if no_wait:
            _print_id(job, as_json)
            return
        with interruptible([job]):
            wait_for(client, [client.record(job.id)], timeout_s)
            show_result(client, job.id, out, as_json)


def img2txt(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Files to caption.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=5, help="Captions each.")] = 1,
    beam_width: Annotated[int, typer.Option(min=1, max=10, help="Captions searched among.")] = 4,
    no_wait: NoWait = False,
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Caption pictures; one that cannot be captioned is told beside the captions of the others."""
    jobs: list[JobHandle] = []
    with opened() as client, interruptible(jobs):
        submitted = _submit_files(client, images, jobs, count, beam_width)
        if not no_wait:
            with suppress(ResultTimeout):  # who has not ended says so in its row
                wait_for(client, [client.record(job.id) for job in jobs], timeout_s)
        rows = [
            _caption_row(client, path, job, ended=not no_wait)
            for path, job in zip(images, submitted, strict=True)
        ]
        _print_captions(rows, as_json)
        if any(row["failure"] is not None for row in rows):
            raise typer.Exit(FAILED)


def _submit_files(
    client: Client, paths: list[Path], jobs: list[JobHandle], count: int, beam_width: int
) -> list[JobHandle | CrossmodalError]:
    """The job of each file, or what is wrong with it; `jobs` are those that were made.

    After an error that is no file's own the rest is not tried; it is raised if no job was made.
    """
    found: list[JobHandle | CrossmodalError] = []
    for i, path in enumerate(paths):
        try:
            jobs.append(client.img2txt(path, count=count, beam_width=beam_width))
            found.append(jobs[-1])
        except InvalidImage as e:
            found.append(e)
        except CrossmodalError as e:
            if not jobs:
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
            say(f"{row['file']}: {row['job']}")
        for caption in row["captions"]:
            say(f"{row['file']}: {caption['text']}")
        if (failure := row["failure"]) is not None:
            say(f"{row['file']}: {failure['code']}: {failure['message']}")


def _print_id(job: JobHandle, as_json: bool) -> None:
    if as_json:
        print_json([{"id": job.id}])
    else:
        say(job.id)
