"""The registry of Celery workers, which each announce themselves every few seconds."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.names import workers_key
from crossmodal.jobs.record import WorkerInfo
from crossmodal.settings import Settings

FORGOTTEN_AFTER_S = 3_600.0
FIRST_NAMESPACE = 0xEFFFFFFC  # of process ids: PROC_PID_INIT_INO in Linux's include/linux/proc_ns.h


def worker_name(slug: str, supervisor: int) -> str:
    """Return a Celery worker's name, unique even where containers share a host name."""
    namespace = FIRST_NAMESPACE
    with suppress(OSError):  # not on Linux
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    inside = "" if namespace == FIRST_NAMESPACE else f"-{namespace:x}"
    return f"{slug}{inside}.{supervisor}@{socket.gethostname()}"


def is_of(name: str, supervisor: int) -> bool:
    """Return whether a worker's name has this supervisor's process id."""
    return f".{supervisor}@" in name


class Workers:
    """The last announcements of workers; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = workers_key(settings.key_prefix)

    @call
    def announce(self, name: str, **said: Any) -> Steps[None]:
        """Announce that a worker consumes; `said` are fields of `WorkerInfo`."""
        seconds, _ = yield redis.time()
        yield redis.hset(self._key, name, json.dumps(said | {"seen_at": seconds}))

    @call
    def leave(self, name: str) -> Steps[None]:
        """Remove the announcement of a worker that stops."""
        yield redis.hdel(self._key, name)

    @call
    def recent(self) -> Steps[list[WorkerInfo]]:
        """Return the workers that were announced within `lease_s`."""
        now, known = yield from self._known()
        # One seen in the future was announced before Redis's clock was put back.
        recent = [w for w in known if abs(now - w.seen_at) <= self._settings.lease_s]
        return sorted(recent, key=lambda worker: worker.name)

    @call
    def forget_silent(self) -> Steps[None]:
        """Remove workers that have been silent for an hour."""
        now, known = yield from self._known()
        for worker in known:
            if now - worker.seen_at > FORGOTTEN_AFTER_S:
                yield from self.leave(worker.name)

    @call
    def _known(self) -> Steps[tuple[float, list[WorkerInfo]]]:
        (seconds, _), said = yield [redis.time(), redis.hgetall(self._key)]
        known = [WorkerInfo(name=name, **json.loads(text)) for name, text in said.items()]
        return float(seconds), known
