"""`crossmodal demo`: draw and caption prompts on a private queue, worker and store."""

import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from crossmodal.console import (
    Json,
    errors_to_exit_status,
    note,
    print_json,
    print_table,
    progress,
    say,
)
from crossmodal.errors import InvalidSetting, described
from crossmodal.jobs.record import JobResult
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.processes import treat_sigterm_as_interrupt
from crossmodal.settings import Settings, load_settings
from producer.client import Client, CommandClient
from producer.commands.contact_sheet import Entry, write_contact_sheet
from producer.handle import JobHandle

PROMPTS = (
    "a large red circle on a white background",
    "a small blue square on a beige background",
    "a big yellow star in the center on a navy background",
    "a green triangle in the top left corner on a white background",
    "a huge purple heart on a white background",
    "a little orange diamond at the bottom on a black background",
    "a cyan ring on the right on a gray background",
    "a big pink cross in the middle on a black background",
    "a red star to the left of a blue circle on a white background",
    "a big green heart above a small yellow triangle on a navy background",
    "a small cyan cross to the right of a big orange circle on a black background",
    "a pink ring below a green square on a white background",
    "a big blue diamond left of a big red triangle on a beige background",
    "a red square, a yellow circle and a cyan triangle in a row on a black background",
    "a small purple star, a small orange heart and a small green cross in a column "
    "on a white background",
    "a big red circle to the left of a small blue triangle and above a big green star "
    "on a white background",
)
LOG = "processes.log"
JOB_TIMEOUT_S = 120.0
VALKEY_STOP_S = 10.0


@dataclass(frozen=True)
class Trip:
    """A prompt, the picture drawn from it, and the caption of that picture."""

    prompt: str
    picture: bytes
    drawn: JobResult
    captioned: JobResult

    @property
    def caption(self) -> str:
        return self.captioned.captions[0].text


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("crossmodal-demo"),
    devices: Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1.")] = "auto",
    as_json: Json = False,
) -> None:
    """Draw 16 prompts, caption the pictures, and keep the results in a folder."""
    treat_sigterm_as_interrupt()
    with errors_to_exit_status():
        started = time.monotonic()
        with _private_stack(_made(out), devices) as settings, CommandClient(settings) as client:
            ready_s = time.monotonic() - started
            trips = _round_trips(client)
        sheet = out / "contact-sheet.png"
        write_contact_sheet([_entry(trip) for trip in trips], sheet)
        total_s = time.monotonic() - started
        if as_json:
            print_json(
                {
                    "contact_sheet": str(sheet),
                    "ready_s": ready_s,
                    "total_s": total_s,
                    "jobs": [_row(t) for t in trips],
                }
            )
            return
        _print(trips)
        say(
            f"\n{len(trips)} pictures and captions in {total_s:.1f} s, of which {ready_s:.1f} s "
            f"to start the stack; everything it started has ended."
        )
        say(f"contact sheet  {sheet}\nobject store   {out / 'storage'}")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOG).touch()
    except OSError as e:
        raise InvalidSetting(f"the folder {folder} cannot be written to: {described(e)}") from e
    return folder.resolve()


@contextmanager
def _private_stack(out: Path, devices: str) -> Iterator[Settings]:
    """Run a private queue, worker and Flower; remove them and the queue's data at the end."""
    with tempfile.TemporaryDirectory(prefix="crossmodal-") as name:
        folder, port, password = Path(name), free_port(), secrets.token_urlsafe(16)
        env = {
            "CELERY_BROKER_URL": valkey_url(port, password),
            "CELERY_RESULT_BACKEND": "",
            "CROSSMODAL_STORAGE_URL": (out / "storage").as_uri(),
            "FLOWER_PORT": str(free_port()),
        }
        os.environ.update(env)  # this process is a producer of the same stack
        settings = load_settings()
        log_path = out / LOG
        with log_path.open("wb") as log, Stack(env, log) as stack:
            note(f"starting Valkey, worker and Flower (their log: {log_path})")
            stack.add(start_valkey(folder / "valkey", port, password), VALKEY_STOP_S)
            stack.start_worker(["--devices", devices], settings.drain_s, folder / "ready")
            if stack.start_flower():
                note(f"Flower is at http://127.0.0.1:{env['FLOWER_PORT']} for the while")
            stack.wait_ready(folder / "ready")
            yield settings


def _round_trips(client: Client) -> list[Trip]:
    """Submit all prompts at once; caption each picture as soon as it is drawn."""
    drawing = {client.txt2img(p, seed=i): p for i, p in enumerate(PROMPTS)}
    captioning: dict[JobHandle, tuple[str, bytes, JobResult]] = {}
    with progress("drawing and captioning", 2 * len(PROMPTS)) as bar:
        task = bar.task_ids[0]
        for job in client.as_completed(drawing, JOB_TIMEOUT_S):
            drawn = job.result()
            picture = client.read(drawn.images[0])
            captioning[client.img2txt(picture)] = (drawing[job], picture, drawn)
            bar.advance(task)
        trips = {}
        for job in client.as_completed(captioning, JOB_TIMEOUT_S):
            prompt, picture, drawn = captioning[job]
            trips[prompt] = Trip(prompt, picture, drawn, job.result())
            bar.advance(task)
    return [trips[prompt] for prompt in PROMPTS]


def _entry(trip: Trip) -> Entry:
    return Entry(Image.open(io.BytesIO(trip.picture)), trip.prompt, trip.caption)


def _row(trip: Trip) -> dict[str, object]:
    return {
        "prompt": trip.prompt,
        "caption": trip.caption,
        "draw_s": trip.drawn.timings.total_s,
        "caption_s": trip.captioned.timings.total_s,
        "batch": trip.drawn.batch_size,
        "image": trip.drawn.images[0].key,
    }


def _print(trips: list[Trip]) -> None:
    columns = ("prompt", "caption", "draw (s)", "caption (s)", "batch")
    print_table(columns, [list(_row(trip).values())[:5] for trip in trips])
