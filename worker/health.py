"""`crossmodal health`: reports whether this machine's workers are live and ready.

Reads files that workers and model hosts touch while they are healthy, without connecting to the
broker: a probe must not fail because Redis does, except with `--writes`. With `--url` it probes a
gateway or Flower instead, so that a container needs no other program for that.
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
HOST = ".host"  # suffix of a model host's heartbeat file, beside its socket
NO_MODELS = "no models"
ANSWER_S = 5.0


@dataclass(frozen=True)
class UnitFiles:
    """The files of one device's model hosts, in the folder of their supervisor."""

    folder: Path
    slug: str

    @property
    def sockets(self) -> list[Path]:
        """The sockets of its model hosts; only those with a loaded, warm model listen."""
        return [*self.folder.glob(f"{self.slug}.sock"), *self.folder.glob(f"{self.slug}-*.sock")]


@dataclass(frozen=True)
class WorkerFiles:
    """The files of one Celery worker, named by `slug`, beside those of its model hosts."""

    unit: UnitFiles
    slug: str

    @property
    def mark(self) -> Path:
        """A file that exists from the start: a worker with a mark but no heartbeat is not live."""
        return self.unit.folder / f"{self.slug}{MARK}"

    def make_mark(self, *, needs_models: bool) -> None:
        """Mark that this worker exists, or is about to start."""
        self.mark.write_text("" if needs_models else NO_MODELS)

    @property
    def needs_models(self) -> bool:
        """Whether it is ready only once one of its model hosts serves."""
        with suppress(FileNotFoundError):
            return self.mark.read_text() != NO_MODELS
        return True

    @property
    def beat(self) -> Path:
        """The heartbeat, which the Celery worker's consuming loop touches."""
        return self.unit.folder / f"{self.slug}.worker"

    @property
    def ready(self) -> Path:
        """A file that the Celery worker touches when it begins to take jobs."""
        return self.unit.folder / f"{self.slug}.ready"


def marked(folder: Path) -> list[WorkerFiles]:
    """Return the workers of the supervisor that owns the folder."""
    slugs = sorted(mark.stem for mark in folder.glob(f"*{MARK}"))
    return [WorkerFiles(UnitFiles(folder, slug), slug) for slug in slugs]


@dataclass(frozen=True)
class Health:
    """The health of one Celery worker: `live` while it consumes, `ready` when models serve as well.

    It is not ready while it `waits_for` something, such as the object store.
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
        str, typer.Option(help="Probe this URL instead, such as a gateway's: exit 0 on success.")
    ] = "",
    writes: Annotated[
        bool, typer.Option("--writes", help="Also check that Redis and the store accept writes.")
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
    """Return whether a URL answers with success within `ANSWER_S`, bypassing any proxy."""
    if not url.startswith(("http://", "https://")):
        raise InvalidSetting(f"--url {url!r}: give one that begins with http:// or https://")
    try:
        build_opener(ProxyHandler({})).open(url, timeout=ANSWER_S).close()
    except (OSError, ValueError) as e:
        cause = getattr(e, "reason", None)  # urllib wraps the system's error
        note(f"{url}: {described(cause if isinstance(cause, OSError) else e)}")
        return False
    return True


def _check_writes(settings: Settings) -> None:
    """Raise `BrokerUnavailable` or `StorageUnavailable` if Redis or the store takes no writes."""
    from crossmodal.jobs.runners import Runner  # slow to import, and few probes need it
    from crossmodal.jobs.server import check_writes
    from crossmodal.storage import open_storage

    with Runner(settings, what="cli") as runner:
        runner.run(check_writes(settings))
    open_storage(settings).check()


def examine(settings: Settings) -> list[Health]:
    """Return the health of every worker of every supervisor that runs on this machine."""
    return [
        _health_of(files, settings)
        for folder in supervisors_in(settings.run_dir)
        if is_locked(folder)
        for files in marked(folder)
    ]


def supervisors_in(run_dir: Path) -> list[Path]:
    """Return the folders of supervisors, including dead ones, and of no other program."""
    return sorted(lock.parent for lock in run_dir.glob(f"*/{LOCK}"))


def lock(folder: Path) -> IO[bytes]:
    """Mark the folder as this process's, for as long as it lives and keeps the file open."""
    new = folder / f"{LOCK}.new"
    file = new.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(folder / LOCK)  # only now: an unlocked file would mean a dead process
    return file


def is_locked(folder: Path) -> bool:
    """Return whether the process that owns the folder is alive."""
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
