"""Who works: each Celery worker says so every few seconds, and for how long that is believed."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.names import workers_key
from crossmodal.jobs.record import WorkerInfo
from crossmodal.settings import Settings

FORGOTTEN_AFTER_S = 3_600.0
FIRST_NAMESPACE = 0xEFFFFFFC  # of process ids: PROC_PID_INIT_INO in Linux's include/linux/proc_ns.h


def worker_name(slug: str, supervisor: int) -> str:
    """What a Celery worker is called: as no other, also where containers share a host's name."""
    namespace = FIRST_NAMESPACE
    with suppress(OSError):  # not on Linux
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    inside = "" if namespace == FIRST_NAMESPACE else f"-{namespace:x}"
    return f"{slug}{inside}.{supervisor}@{socket.gethostname()}"


def is_of(name: str, supervisor: int) -> bool:
    """Whether `worker_name` makes such a name for a supervisor's process id."""
    return f".{supervisor}@" in name


class Workers:
    """What workers said of themselves last. Every method may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._key = workers_key(settings.key_prefix)
        self._redis: Any = redis

    def announce(self, name: str, **said: Any) -> None:
        """Say that a worker consumes; `said` are fields of `WorkerInfo`."""
        with broker_errors(self._settings):
            seconds, _ = self._redis.time()
            self._redis.hset(self._key, name, json.dumps(said | {"seen_at": seconds}))

    def leave(self, name: str) -> None:
        """Take back what a worker said: it stops."""
        with broker_errors(self._settings):
            self._redis.hdel(self._key, name)

    def recent(self) -> list[WorkerInfo]:
        """Those that were heard of within a lease."""
        now, known = self._known()
        recent = [w for w in known if now - w.seen_at <= self._settings.lease_s]
        return sorted(recent, key=lambda worker: worker.name)

    def forget_silent(self) -> None:
        """Take off the list what has been silent for an hour."""
        now, known = self._known()
        for worker in known:
            if now - worker.seen_at > FORGOTTEN_AFTER_S:
                self.leave(worker.name)

    def _known(self) -> tuple[float, list[WorkerInfo]]:
        with broker_errors(self._settings):
            seconds, _ = self._redis.time()
            said = self._redis.hgetall(self._key)
        known = [WorkerInfo(name=name, **json.loads(text)) for name, text in said.items()]
        return float(seconds), known
