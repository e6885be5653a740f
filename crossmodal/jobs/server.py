"""What a Redis server's memory and configuration mean for the jobs it is given."""

import time
from typing import Any

from redis.exceptions import ResponseError

from crossmodal.errors import BrokerFull
from crossmodal.jobs.connection import broker_errors
from crossmodal.settings import Settings

LOOK_S = 1.0


class MemoryGuard:
    """Refuses new jobs before Redis itself must: what is left is for the jobs it has."""

    def __init__(self, settings: Settings, redis: Any) -> None:
        self._settings = settings
        self._redis = redis
        self._looked_at = -LOOK_S
        self._problem = ""

    def check(self) -> None:
        """Look at most once a second. Raises `BrokerFull`."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._problem = self._look()
            self._looked_at = now
        if self._problem:
            raise BrokerFull(self._problem)

    def _look(self) -> str:
        with broker_errors(self._settings):
            memory = self._redis.info("memory")
        used, limit = memory["used_memory"], memory.get("maxmemory", 0)
        ratio = self._settings.max_memory_ratio
        if not limit or used < ratio * limit:
            return ""
        return (
            f"Redis uses {used:,} of {limit:,} bytes, over {ratio:.0%}: submit again when jobs "
            "have ended, give it more maxmemory, or lower CROSSMODAL_RETENTION_S"
        )


def warnings(redis: Any) -> list[str]:
    """How this server may lose jobs that it was given, each with what to do about it."""
    found = []
    policy = eviction_policy(redis)
    if policy not in ("noeviction", "unknown"):
        found.append(
            f"maxmemory-policy is {policy}: the server may throw jobs away. "
            "CONFIG SET maxmemory-policy noeviction"
        )
    if not keeps_data(redis):
        found.append(
            "the server keeps nothing on disk: its restart loses all jobs. "
            "CONFIG SET appendonly yes"
        )
    return found


def eviction_policy(redis: Any) -> str:
    """The server's `maxmemory-policy`; `unknown` where it does not say."""
    return _config(redis, "maxmemory-policy") or "unknown"


def keeps_data(redis: Any) -> bool:
    """Whether the server writes its data to disk, by append-only file or by snapshots."""
    if redis.info("persistence").get("aof_enabled"):
        return True
    return _config(redis, "save") != ""


def _config(redis: Any, name: str) -> str | None:
    try:
        found = redis.config_get(name)
    except ResponseError:  # managed servers forbid CONFIG
        return None
    value = found.get(name)
    return None if value is None else str(value)
