"""Jobs and results as HTML for notebooks.

Nothing here raises or takes long: what cannot be read in time is left out.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from html import escape
from string import Template
from threading import Thread
from typing import Any, Protocol, TypeVar

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.record import Failure, ItemResult, Job, JobResult, JobState, JobStatus
from crossmodal.kinds.fields import BlobRef
from crossmodal.vision.media import media_type
from producer.place import place

MAX_S = 5.0  # max time to make the HTML
MAX_BYTES = 16_000_000  # max bytes of all pictures, which the notebook's file embeds

FIGURE = Template(
    '<figure style="display:inline-table;min-width:12em;margin:0 1em 1em 0;vertical-align:top">'
    '<img src="data:$type;base64,$data" alt="$alt" style="max-width:100%;max-height:32em">'
    '<figcaption style="display:table-caption;caption-side:bottom">$about</figcaption></figure>'
)
LINE = Template("<div>$text</div>")
STATE = Template("<div><code>$id</code> $words $bar</div>")
BAR = Template('<progress value="$step" max="$of"></progress>')

T = TypeVar("T")
Read = Callable[[BlobRef], bytes]
Result = JobResult | ItemResult


class Looks(Protocol):
    """The part of a client that shows a job."""

    def record(self, job: str) -> Job: ...
    def status(self, job: str) -> JobStatus: ...
    def read(self, blob: BlobRef) -> bytes: ...


R = TypeVar("R", JobResult, ItemResult)


def with_pictures(found: R, read: Read) -> R:
    """Return a result that notebooks show with its pictures."""
    return found.shown_by(partial(result_html, read=read))


def result_html(found: Result, read: Read) -> str | None:
    """Return a result as HTML; None, which shows its text, if it cannot be read in time."""
    made = within(MAX_S, lambda: _result(found, read))
    return made if isinstance(made, str) else None


def job_html(client: Looks, job_id: str) -> str:
    """Return a job's result or status as HTML."""
    found = within(MAX_S, lambda: _job(client, job_id))
    if isinstance(found, str):
        return found
    if isinstance(found, CrossmodalError):
        return STATE.substitute(id=escape(job_id), words=_said(Failure.of(found)), bar="")
    return STATE.substitute(id=escape(job_id), words="cannot be read now", bar="")


def status_html(status: JobStatus) -> str:
    """Return a status as HTML, with a progress bar if the model reports its steps."""
    step = status.progress
    bar = "" if step is None else BAR.substitute(step=step.step, of=step.of)
    return STATE.substitute(id=escape(status.id), words=escape(place(status)), bar=bar)


def within(seconds: float, function: Callable[[], T]) -> T | Exception | None:
    """Return what a function returns or raises within `seconds`; None if it takes longer."""
    found: Future[T | Exception] = Future()

    def run() -> None:
        try:
            found.set_result(function())
        except Exception as e:  # noqa: BLE001 - the caller shows that there is one
            found.set_result(e)

    Thread(target=run, name="notebook", daemon=True).start()
    wait([found], seconds)
    return found.result() if found.done() else None


def _job(client: Looks, job_id: str) -> str:
    job = client.record(job_id)
    if job.result is not None:
        return _result(job.result, client.read)
    if job.state is JobState.FAILED and job.failure is not None:
        words = f"{job.state}, {_said(job.failure)}"
        return STATE.substitute(id=escape(job.id), words=words, bar="")
    return status_html(client.status(job_id))


def _result(found: Result, read: Read) -> str:
    about = _about(found)
    if found.captions:
        shown = [_picture(read, _shown_to(found), [one.text for one in found.captions])]
    else:
        shown = list(_pictures(found, read, about))
    return "".join([*(one for one in shown if one), *map(_line, _lines(found))])


def _pictures(found: Result, read: Read, about: str) -> Iterable[str]:
    left = MAX_BYTES
    for i, image in enumerate(found.images):
        seed = "" if found.seed is None else f", seed {found.seed + i}"
        size = image.size or 0
        if size > left:
            yield _line(f"{len(found.images) - i} more: {image.key} …")
            return
        left -= size
        yield _picture(read, image, [about + seed])


def _picture(read: Read, image: BlobRef | None, about: Sequence[str]) -> str:
    """Return a picture with its text; the text alone if the picture is gone."""
    said = "<br>".join(map(escape, about))
    data = b"" if image is None else _read(read, image)
    if not data:
        return LINE.substitute(text=said)
    encoded = base64.b64encode(data).decode()
    return FIGURE.substitute(type=media_type(data), data=encoded, alt=escape(about[0]), about=said)


def _read(read: Read, image: BlobRef) -> bytes:
    """Return the bytes of a picture; b"" if it is gone or too large to show."""
    if (image.size or 0) > MAX_BYTES:
        return b""
    try:
        data = read(image)
        media_type(data)
    except CrossmodalError:
        return b""
    return data


def _shown_to(found: Result) -> BlobRef | None:
    """Return the picture that was captioned, if it is known."""
    if isinstance(found, ItemResult) or found.task.kind.picture is None:
        return None
    given: Any = found.params.get(found.task.kind.picture)
    return BlobRef.model_validate(given) if isinstance(given, dict) else None


def _about(found: Result) -> str:
    """Return the text for a picture: its prompt and model, or its custom id."""
    if isinstance(found, ItemResult):
        return found.custom_id
    return f"{found.params.get('prompt', found.job)} — {found.model}"


def _lines(found: Result) -> Iterable[str]:
    """Yield further lines: a failure, counts, warnings."""
    if isinstance(found, ItemResult) and found.failure is not None:
        yield f"{found.custom_id}: {found.failure.code}: {found.failure.message}"
    if isinstance(found, JobResult) and found.parts:
        yield f"{found.completed} made, {found.failed} failed"
    yield from found.warnings


def _line(text: str) -> str:
    return LINE.substitute(text=escape(text))


def _said(failure: Failure) -> str:
    return escape(f"{failure.code}: {failure.message}")
