"""One `crossmodal up` a queue on a machine: the others are told where it is."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossmodal.errors import CrossmodalError, InvalidSetting, described
from crossmodal.files import make_private
from crossmodal.jobs.connection import address_of
from crossmodal.settings import Settings, data_dir


class AlreadyRunning(CrossmodalError):
    """A `crossmodal up` of this user runs for the same queue."""

    code = "already_running"


@contextmanager
def claimed(settings: Settings, places: dict[str, Any]) -> Iterator[Path]:
    """A folder for what this `up` says, which no other one has meanwhile.

    `places` is what others are told. Raises `AlreadyRunning`, and touches nothing then.
    """
    folder = data_dir() / "up" / _slug(settings)
    try:
        make_private(folder)  # logs at DEBUG have prompts
        file = (folder / "running.json").open("a+")
    except OSError as e:
        raise InvalidSetting(
            f"the logs cannot be kept in {folder}: {described(e)}: set XDG_DATA_HOME"
        ) from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(_where(file.read())) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), **places}))
        file.flush()
        try:
            yield folder
        finally:
            file.truncate(0)


def _slug(settings: Settings) -> str:
    """The queue as the name of a folder."""
    address = address_of(settings)
    host, port = address.hosts[0]
    host = "127.0.0.1" if host == "localhost" else host
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{host}-{port}-{address.db}-{settings.key_prefix}")


def _where(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:  # it has only just been started
        return "another `crossmodal up` is starting for this queue"
    page = f", its page is {found['page']}" if found.get("page") else ""
    return (
        f"a `crossmodal up` runs already for {found['queue']}: process {found['pid']}{page}. Use "
        f"that one, or end it with Ctrl-C where it runs, or with `kill {found['pid']}`"
    )
