"""A lock that allows one `crossmodal up` per queue; others get an error with its address."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossmodal.errors import CrossmodalError, InvalidSetting, described
from crossmodal.files import make_private, private
from crossmodal.jobs.connection import address_of
from crossmodal.settings import Settings, data_dir


class AlreadyRunning(CrossmodalError):
    """A `crossmodal up` of this user already runs for the same queue."""

    code = "already_running"


@contextmanager
def claimed(settings: Settings, places: dict[str, Any]) -> Iterator[Path]:
    """Lock this queue's folder of logs for this `up`, and yield the folder.

    `places` is what the error of another `up` reports. Raises `AlreadyRunning`, and changes nothing
    then.
    """
    folder = data_dir() / "up" / _slug(settings)
    try:
        make_private(folder)  # logs of level DEBUG contain prompts
        file = open(folder / "running.json", "a+", opener=private)  # noqa: SIM115
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
    """Return the queue's address and prefix as a folder's name."""
    address = address_of(settings)
    host, port = address.hosts[0]
    host = "127.0.0.1" if host == "localhost" else host
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{host}-{port}-{address.db}-{settings.key_prefix}")


def _where(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:  # it has just started, and not written the file yet
        return "another `crossmodal up` is starting for this queue"
    page = f", its page is {found['page']}" if found.get("page") else ""
    return (
        f"a `crossmodal up` is already running for {found['queue']}: process "
        f"{found['pid']}{page}. Use that one, or end it with Ctrl-C where it runs, or with `kill "
        f"{found['pid']}`"
    )
