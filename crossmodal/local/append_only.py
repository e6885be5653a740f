"""The embedded server's append-only file, which is rewritten after its disk was full.

Redis since 7.0 and Valkey up to 9.1 open the file that a rewrite begins without O_APPEND. When a
full disk cuts a write short, they truncate the file and go on writing at the old offset: zeros
stay between, and the next start ends with "Bad file format". Another rewrite replaces the file.
"""

import time
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from crossmodal.console import note

EVERY_S = 1.0
TIMEOUT_S = 1.0
AGAIN_S = 30.0  # after a rewrite that failed, as for want of room


class _State(Enum):
    WHOLE = auto()
    SUSPECT = auto()
    REWRITING = auto()


class AppendOnlyFile:
    """The file of the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._state = _State.WHOLE
        self._due = 0.0

    @property
    def is_whole(self) -> bool:
        return self._state is _State.WHOLE

    def look(self) -> None:
        """Begin a rewrite if the disk was full and now has room. Call it often."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY_S
        with (
            suppress(RedisError),
            Redis.from_url(
                self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
            ) as redis,
        ):
            self._look(redis, redis.info("persistence"))

    def _look(self, redis: Any, found: dict[str, Any]) -> None:
        if found["aof_last_write_status"] != "ok":
            self._state = _State.SUSPECT
        elif found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]:
            return  # it may have begun while the disk was full
        elif self._state is _State.SUSPECT:
            redis.bgrewriteaof()
            self._state = _State.REWRITING
        elif self._state is _State.REWRITING and found["aof_last_bgrewrite_status"] == "ok":
            note("the disk of the queue's data was full: its append-only file has been rewritten")
            self._state = _State.WHOLE
        elif self._state is _State.REWRITING:
            self._state, self._due = _State.SUSPECT, time.monotonic() + AGAIN_S
