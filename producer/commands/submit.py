"""The commands that submit jobs, one per kind."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.console import FAILED, Json, errors_to_exit_status, print_json, say
from crossmodal.errors import CrossmodalError, InvalidImage, InvalidSetting, ResultTimeout
from crossmodal.jobs.record import Failure
from crossmodal.kinds.base import Kind
from crossmodal.kinds.images import stored_format
from crossmodal.kinds.registry import kinds
from producer.checks import MAX_KEEP_S
from producer.client import Client, CommandClient
from producer.commands.options import parameters_of, takes_several
from producer.commands.outcome import check_out, show_result
from producer.handle import JobHandle, result_of
from producer.patience import interruptible, wait_for

NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", min=0, metavar="SECONDS", help="How long to wait; by default, until the end."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="File to write: .png, .jpg or .webp; several as NAME-0.png …",
    ),
]


@contextmanager
def opened() -> Iterator[Client]:
    """Yield a client whose errors end the command."""
    with errors_to_exit_status(), CommandClient() as client:
        yield client


def command_of(kind: Kind) -> Callable[..., None]:
    """Return the command that submits jobs of a kind; its options are the kind's params."""
    run, own = (_describe, ()) if takes_several(kind) else (_make, _OUT[kind.output])

    def command(**given: Any) -> None:
        run(kind, **given)

    parameters = [*parameters_of(kind), *own, *_SHARED]
    named: Any = command
    named.__name__, named.__doc__ = kind.name, f"{kind.about}."
    named.__signature__ = Signature(parameters)
    named.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _option(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


Params = Annotated[
    list[str] | None,
    typer.Option("-p", "--param", metavar="NAME=VALUE", help="A param that only the model has."),
]
Priority = Annotated[
    int, typer.Option(min=-1, max=1, help="1: before other waiting jobs, -1: after them.")
]
Keep = Annotated[
    float | None,
    typer.Option(
        "--keep",
        min=1,
        max=MAX_KEEP_S,
        metavar="SECONDS",
        help="How long the record is kept after the job's end.",
    ),
]
_OUT = {"images": (_option("out", Out, None),), "captions": ()}
_SHARED = (
    Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context),
    _option("more", Params, None),
    _option("priority", Priority, 0),
    _option("keep_s", Keep, None),
    _option("no_wait", NoWait, False),
    _option("timeout_s", Timeout, None),
    _option("as_json", Json, False),
)


def _make(
    kind: Kind,
    *,
    context: typer.Context,
    more: list[str] | None,
    priority: int,
    keep_s: float | None,
    no_wait: bool,
    timeout_s: float | None,
    as_json: bool,
    out: Path | None = None,
    **params: Any,
) -> None:
    """Submit one job, and show its result."""
    with opened() as client:
        count, stored = params["count"], stored_format(kind, params)
        params = _given(context, kind, params, more)
        if out is not None and no_wait:
            raise InvalidSetting(
                f"-o {out} cannot be used with --no-wait: fetch the picture later with "
                "`crossmodal result ID -o FILE`"
            )
        if out is not None:
            check_out(client, out, stored, count)
        job = client.submit(kind.name, **params, priority=priority, keep_s=keep_s)
        if no_wait:
            _print_id(job, as_json)
            return
        with interruptible([job]):
            wait_for(client, [client.record(job.id)], timeout_s)
            show_result(client, job.id, out, as_json)


def _describe(
    kind: Kind,
    *,
    context: typer.Context,
    more: list[str] | None,
    priority: int,
    keep_s: float | None,
    no_wait: bool,
    timeout_s: float | None,
    as_json: bool,
    **params: Any,
) -> None:
    """Submit a job for each file, and show each one's captions or error."""
    jobs: list[JobHandle] = []
    paths: list[Path] = params.pop(str(kind.picture))
    with opened() as client, interruptible(jobs):
        params = _given(context, kind, params, more) | {"priority": priority, "keep_s": keep_s}
        submitted = _submit_files(client, kind, paths, jobs, params)
        if not no_wait:
            with suppress(ResultTimeout):  # such a job's row says that it has not ended
                wait_for(client, [client.record(job.id) for job in jobs], timeout_s)
        rows = [
            _caption_row(client, path, job, ended=not no_wait)
            for path, job in zip(paths, submitted, strict=True)
        ]
        _print_captions(rows, as_json)
        if any(row["failure"] is not None for row in rows):
            raise typer.Exit(FAILED)


def _given(
    context: typer.Context, kind: Kind, options: dict[str, Any], more: list[str] | None
) -> dict[str, Any]:
    """Return the given params; the model has defaults for others. Raises `InvalidSetting`."""
    said = {name: value for name, value in options.items() if _is_said(context, name)}
    for text in more or []:
        name, sign, value = text.partition("=")
        if not sign or name in kind.params.model_fields:
            remedy = f"give it as --{name}" if sign else "write NAME=VALUE"
            raise InvalidSetting(f"--param {text!r}: {remedy}")
        said[name] = _value(value)
    return said


def _is_said(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _value(text: str) -> Any:
    """Parse a value as JSON, or return it as text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _submit_files(
    client: Client, kind: Kind, paths: list[Path], jobs: list[JobHandle], params: dict[str, Any]
) -> list[JobHandle | CrossmodalError]:
    """Submit each file. Returns its job or its error, and adds each job to `jobs`.

    An error that does not concern a single file ends the loop; it is raised if there is no job yet.
    """
    found: list[JobHandle | CrossmodalError] = []
    for i, path in enumerate(paths):
        try:
            jobs.append(client.submit(kind.name, **(params | {str(kind.picture): path})))
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


commands = {name: command_of(kind) for name, kind in kinds().items()}
