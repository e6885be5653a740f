"""`crossmodal health`: may this machine's workers live on, and may they be given jobs?

Answers from files that the workers and model hosts touch while they are well, without a
word to the broker: a probe must not fail because Redis does, unless it is asked `--writes`. With
`--url` it asks a gateway, or Flower, so that a container needs no other program for its probe.
"""

import fcntl
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated
from urllib.request import ProxyHandler, build_opener

import typer

from crossmodal.console import FAILED, Json, errors_to_exit_status, note, print_json, print_table
from crossmodal.errors import InvalidSetting, described
from crossmodal.settings import Settings, load_settings
from worker.beat import age_s, heard

LOCK = "supervisor.lock"
MARK = ".unit"
HOST = ".host"  # of a file beside a model host's socket, which that touches
NO_MODELS = "no models"
ANSWER_S = 5.0


@dataclass(frozen=True)
class UnitFiles:
    """The files of one device's model hosts, in the folder of the supervisor that watches it."""

    folder: Path
    slug: str

    @property
    def sockets(self) -> list[Path]:
        """Where its model hosts listen, those whose models are loaded and warm."""
        return [*self.folder.glob(f"{self.slug}.sock"), *self.folder.glob(f"{self.slug}-*.sock")]


@dataclass(frozen=True)
class WorkerFiles:
    """The files of one Celery worker, which is called `slug`, beside those of its model host."""

    unit: UnitFiles
    slug: str

    @property
    def mark(self) -> Path:
        """There from the start: what has a mark and no heartbeat is not well."""
        return self.unit.folder / f"{self.slug}{MARK}"

    def make_mark(self, *, needs_models: bool) -> None:
        """Say that there is, or is to be, such a worker."""
        self.mark.write_text("" if needs_models else NO_MODELS)

    @property
    def needs_models(self) -> bool:
        """Whether it is ready only once a model host serves beside it."""
        with suppress(FileNotFoundError):
            return self.mark.read_text() != NO_MODELS
        return True

    @property
    def beat(self) -> Path:
        """Touched by the Celery worker's consuming loop."""
        return self.unit.folder / f"{self.slug}.worker"

    @property
    def ready(self) -> Path:
        """Touched by the Celery worker when it has begun to take jobs."""
        return self.unit.folder / f"{self.slug}.ready"


def marked(folder: Path) -> list[WorkerFiles]:
    """The workers of the supervisor whose folder it is."""
    slugs = sorted(mark.stem for mark in folder.glob(f"*{MARK}"))
    return [WorkerFiles(UnitFiles(folder, slug), slug) for slug in slugs]


@dataclass(frozen=True)
class Health:
    """One Celery worker: `live` while it consumes, `ready` when its models serve as well.

    It is not ready while it `waits_for` something, as its object store.
    """

    worker: str
    live: bool
    ready: bool
    silent_s: float | None
    waits_for: str = ""


def health(
    live: Annotated[bool, typer.Option("--live", help="Exit 0 if all workers are live.")] = False,
    ready: Annotated[bool, typer.Option("--ready", help="Exit 0 if all are ready.")] = False,
    url: Annotated[
        str, typer.Option(help="Ask this URL instead, as that of a gateway: exit 0 on success.")
    ] = "",
    writes: Annotated[
        bool, typer.Option("--writes", help="Ask also whether Redis and the store take writes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Whether the workers of this machine are live, or ready; exit status 1 when not."""
    with errors_to_exit_status():
        if url:
            raise typer.Exit(0 if answers(url) else FAILED)
        settings = load_settings()
        if writes:
            _check_writes(settings)
        found = examine(settings)
    if as_json:
        print_json([asdict(unit) for unit in found])
    else:
        print_table(
            ("worker", "live", "ready", "silent (s)", "waits for"),
            [(u.worker, _yes(u.live), _yes(u.ready), u.silent_s, u.waits_for) for u in found],
            "no worker runs here",
        )
    good = all(unit.live if live and not ready else unit.ready for unit in found)
    if not found or not good:
        raise typer.Exit(FAILED)


def answers(url: str) -> bool:
    """Whether a URL answers with success within seconds, asked past any proxy."""
    if not url.startswith(("http://", "https://")):
        raise InvalidSetting(f"--url {url!r}: give one that begins with http:// or https://")
    try:
        build_opener(ProxyHandler({})).open(url, timeout=ANSWER_S).close()
    except (OSError, ValueError) as e:
        cause = getattr(e, "reason", None)  # urllib wraps what the system says
        note(f"{url}: {described(cause if isinstance(cause, OSError) else e)}")
        return False
    return True


def _check_writes(settings: Settings) -> None:
    """Raise `BrokerUnavailable` or `StorageUnavailable` where something takes no writes."""
    from crossmodal.jobs.runners import Runner  # a while to load, for what few probes ask
    from crossmodal.jobs.server import check_writes
    from crossmodal.storage import open_storage

    with Runner(settings, what="cli") as runner:
        runner.run(check_writes(settings))
    open_storage(settings).check()


def examine(settings: Settings) -> list[Health]:
    """The health of every worker of every supervisor that runs on this machine."""
    return [
        _health_of(files, settings)
        for folder in supervisors_in(settings.run_dir)
        if is_locked(folder)
        for files in marked(folder)
    ]


def supervisors_in(run_dir: Path) -> list[Path]:
    """The folders of supervisors, also of those that have died; and of no other program."""
    return sorted(lock.parent for lock in run_dir.glob(f"*/{LOCK}"))


def lock(folder: Path) -> IO[bytes]:
    """Mark the folder as that of this process, for as long as it lives and keeps the file open."""
    new = folder / f"{LOCK}.new"
    file = new.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(folder / LOCK)  # only now: one that is not locked would be taken for a dead one's
    return file


def is_locked(folder: Path) -> bool:
    """Whether the process that the folder belongs to is alive."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has just been removed
        return False
    return False


def _health_of(files: WorkerFiles, settings: Settings) -> Health:
    silent_s = age_s(files.beat)
    live = silent_s is not None and silent_s <= settings.heartbeat_s
    serves = not files.needs_models or _serves(files.unit, settings)
    waits_for = heard(files.beat) or ""
    ready = live and serves and files.ready.exists() and not waits_for
    return Health(files.slug, live, ready, silent_s, waits_for)


def _serves(unit: UnitFiles, settings: Settings) -> bool:
    return any(
        socket.is_socket() and (age_s(socket.with_suffix(HOST)) or 0.0) <= settings.heartbeat_s
        for socket in unit.sockets
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
