"""Pulls a repository into a folder, which exists complete or not at all.

Files are fetched into `.NAME.part` beside it. After an interruption they stay there, and the same
command resumes. A file there is kept if its digest is the hub's, whichever commit it is from.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from crossmodal.console import note, progress
from crossmodal.errors import (
    Interrupted,
    InvalidSetting,
    ModelDamaged,
    OutputNotWritable,
    described,
)
from crossmodal.files import write_whole
from crossmodal.models.catalog import CONFIG as OUR_CONFIG
from worker.hub.choice import SOURCE, mark_of, needed
from worker.hub.client import Advance, Hub
from worker.hub.repository import Digests, HubFile, Repository, digests

UNFINISHED = ".incomplete"


@dataclass(frozen=True)
class Pulled:
    """A folder, and where its files came from."""

    folder: Path
    repository: str
    commit: str
    files: int
    size: int


def pull(name: str, revision: str | None, folder: Path, variant: str) -> Pulled:
    """Fetch the files that a model needs into a folder.

    Raises `ModelHubError` and its subclasses, `InvalidModel` for a model that could not be served,
    `InvalidSetting` if the folder has something else, and `OutputNotWritable`.
    """
    hub = Hub(name)
    repository = hub.repository(revision)
    if folder.exists():
        found_there = _found(folder, repository, variant)
        note(f"{folder} already has all files")
        return found_there
    told = hub.settings(repository.commit, repository.by_name[mark_of(repository)])
    files = needed(repository, told, variant)
    part = folder.with_name(f".{folder.name}.part")
    with _written(part):
        _check_space(repository, files, part)
        found = _fetch_all(hub, repository, files, part)
        _sort_out(part, {file.name for file in files})
        if variant:
            write_whole(part / OUR_CONFIG, f'variant = "{variant}"\n')
        write_whole(part / SOURCE, json.dumps(_source(repository, variant, found), indent=2) + "\n")
        part.rename(folder)
    return _found(folder, repository, variant)


def _source(repository: Repository, variant: str, found: Mapping[str, Digests]) -> dict[str, Any]:
    files = {name: {"size": one.size, "sha256": one.sha256} for name, one in found.items()}
    return {
        "repository": repository.name,
        "commit": repository.commit,
        "variant": variant or None,
        "files": files,
    }


def _found(folder: Path, repository: Repository, variant: str) -> Pulled:
    """Return what the folder has. Raises `InvalidSetting` if it is not the requested model."""
    try:
        source = json.loads((folder / SOURCE).read_text())
        is_it = (source["repository"], source["commit"], source["variant"] or "") == (
            repository.name,
            repository.commit,
            variant,
        )
        files = [file["size"] for file in source["files"].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        is_it, files = False, []
    if not is_it:
        raise InvalidSetting(
            f"{folder} already exists, and is not {repository.name} at commit "
            f"{repository.commit[:12]}: remove it, or pass another folder as --to"
        )
    return Pulled(folder, repository.name, repository.commit, len(files), sum(files))


@contextmanager
def _written(part: Path) -> Iterator[None]:
    """Make and lock a folder that only this process writes to."""
    try:
        part.mkdir(parents=True, exist_ok=True)
        lock = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            with suppress(OSError):
                part.rmdir()  # if it is empty
            os.close(lock)
    except BlockingIOError as e:
        raise InvalidSetting(
            f"another process is fetching into {part}: wait for it to finish"
        ) from e
    except OSError as e:
        raise OutputNotWritable(f"{part} cannot be written: {described(e)}") from e
    except KeyboardInterrupt as e:
        raise Interrupted(
            f"what was fetched is kept in {part}: run the command again to resume"
        ) from e


def _check_space(repository: Repository, files: list[HubFile], part: Path) -> None:
    """Raise `OutputNotWritable` if the disk has no space for the files still missing."""
    there = sum(
        path.stat().st_size
        for file in files
        for path in (part / file.name, _unfinished(part, file))
        if path.is_file()
    )
    lacking = sum(file.size for file in files) - there
    free = shutil.disk_usage(part).free
    if lacking > free:
        raise OutputNotWritable(
            f"{repository.name} needs {decimal(lacking)} more in {part.parent}, which has "
            f"{decimal(free)} free: make room, or pass another folder as --to"
        )


def _fetch_all(
    hub: Hub, repository: Repository, files: list[HubFile], part: Path
) -> dict[str, Digests]:
    """Fetch all files into a folder, the smallest first, and return their digests."""
    total = sum(file.size for file in files)
    note(f"{repository.name} at {repository.commit[:12]}: {len(files)} files, {decimal(total)}")
    found = {}
    with progress(repository.name.rpartition("/")[2], total, in_bytes=True) as bar:

        def advance(size: int) -> None:
            bar.advance(bar.task_ids[0], size)

        for file in sorted(files, key=lambda file: (file.size, file.name)):
            found[file.name] = _fetched(hub, repository, file, part, advance)
    return dict(sorted(found.items()))


def _fetched(
    hub: Hub, repository: Repository, file: HubFile, part: Path, advance: Advance
) -> Digests:
    """Fetch a file unless it is there. Raises `ModelDamaged` if its digest is wrong."""
    path = part / file.name
    if path.is_file() and (found := digests(path)).are_of(file):
        advance(file.size)
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(part, file)
    with _kept_unless_damaged(unfinished):
        with unfinished.open("ab") as into:
            advance(into.tell())
            hub.fetch(repository.commit, file, into, advance)
            into.flush()
            os.fsync(into.fileno())
        found = digests(unfinished)
        if not found.are_of(file):
            raise ModelDamaged(
                f"{file.name} of {repository.name} has another digest than the hub reports, and "
                "was deleted: try again"
            )
        unfinished.replace(path)
    return found


def _unfinished(part: Path, file: HubFile) -> Path:
    return part / f"{file.name}.{file.mark}{UNFINISHED}"


@contextmanager
def _kept_unless_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelDamaged:
        path.unlink(missing_ok=True)
        raise


def _sort_out(part: Path, names: set[str]) -> None:
    """Remove files left by other commits and by interrupted downloads."""
    for path in sorted(part.rglob("*"), reverse=True):  # a folder after what is in it
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path.relative_to(part).as_posix() not in names:
            path.unlink()
