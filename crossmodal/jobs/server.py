"""Checks of a Redis server: memory, persistence, cluster mode, access."""

import time
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from redis.exceptions import RedisError, ResponseError

from crossmodal.addresses import LOOPBACK
from crossmodal.errors import BrokerFull, BrokerNotTrusted, BrokerRefused, BrokerUnavailable
from crossmodal.jobs.calls import Script, Steps, call, redis
from crossmodal.jobs.connection import address_of, broker_errors, connect, in_cluster_mode
from crossmodal.jobs.names import probe_key
from crossmodal.settings import Settings, redacted

CHECK_S = 1.0
KEPT = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
PROBE_S = 60  # lifetime of the key of a write check


class MemoryGuard:
    """A guard that refuses new jobs while Redis still has memory left for the jobs it holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked_at = -CHECK_S
        self._problem = ""

    @call
    def check(self) -> Steps[None]:
        """Check the memory, queried at most once a second. Raises `BrokerFull`."""
        now = time.monotonic()
        if now - self._asked_at >= CHECK_S:
            self._asked_at = now  # concurrent submits need not query too
            self._problem = self._problem_of((yield redis.info("memory")))
        if self._problem:
            raise BrokerFull(self._problem)

    def _problem_of(self, memory: dict[str, Any]) -> str:
        used, limit = memory["used_memory"], memory.get("maxmemory", 0)
        ratio = self._settings.max_memory_ratio
        if not limit or used < ratio * limit:
            return ""
        return (
            f"Redis uses {used:,} of {limit:,} bytes, over {ratio:.0%}: submit again when jobs "
            "have ended, raise its maxmemory, or lower CROSSMODAL_RETENTION_S"
        )


@call
def check_writes(settings: Settings) -> Steps[None]:
    """Raise `BrokerUnavailable` if Redis answers but refuses writes, for any reason.

    INFO covers only some of the reasons, so this runs a script that writes, as a submission does.
    """
    prefix = settings.key_prefix
    yield Script("probe", (probe_key(prefix),), (prefix, "", PROBE_S))


def check_server(settings: Settings) -> None:
    """Refuse an unusable server at startup; ignore an unreachable one, which may come up.

    Raises `InvalidSetting` in cluster mode, `BrokerRefused` and `BrokerNotTrusted`.
    """
    try:
        with broker_errors(settings), connect(settings) as server:
            refuse_cluster(settings, server)
    except (BrokerRefused, BrokerNotTrusted):
        raise
    except BrokerUnavailable:
        return


def refuse_cluster(settings: Settings, server: Any) -> None:
    """Raise `InvalidSetting` if the server runs in cluster mode."""
    if server.info("cluster").get("cluster_enabled"):
        raise in_cluster_mode(redacted(settings.broker_url.get_secret_value()))


def warnings(server: Any) -> list[str]:
    """Return the ways in which this server may lose jobs, each with its remedy."""
    found = []
    policy = eviction_policy(server)
    if policy not in ("noeviction", "unknown"):
        found.append(
            f"maxmemory-policy is {policy}: the server may evict jobs. CONFIG SET "
            "maxmemory-policy noeviction"
        )
    kept = keeps_data(server)
    if not kept:
        found.append(
            "the server has no append-only file and does not say whether it takes snapshots: its "
            "restart may lose jobs. CONFIG SET appendonly yes"
            if kept is None
            else "the server keeps nothing on disk: its restart loses all jobs. "
            "CONFIG SET appendonly yes"
        )
    return found + _failing(server)


def _failing(server: Any) -> list[str]:
    """Return the failures that INFO reports and that lose accepted jobs."""
    said = server.info("persistence") | server.info("replication")
    found = [
        f"{name} is {said[name]}: its data cannot be written. Free space on its disk, and see its "
        "log"
        for name in KEPT
        if said.get(name, "ok") != "ok"
    ]
    if said["role"] != "master":
        found.append(
            "the server is a replica: what is written to it is lost. Name its primary in "
            "CELERY_BROKER_URL"
        )
    return found


def eviction_policy(server: Any) -> str:
    """Return the server's `maxmemory-policy`; `unknown` if INFO omits it."""
    return str(server.info("memory").get("maxmemory_policy", "unknown"))


def keeps_data(server: Any) -> bool | None:
    """Return whether the server writes its data to disk: an append-only file, or snapshots.

    None if it has no append-only file and hides its snapshot configuration.
    """
    if server.info("persistence").get("aof_enabled"):
        return True
    save = _config(server, "save")
    return None if save is None else save != ""


def open_to_all(settings: Settings) -> str | None:
    """Return why it is dangerous that Redis admits clients without a login; "" if it is safe.

    None if it admits none: the user `default` is off or has a password.
    """
    url = SecretStr(_without_login(settings.broker_url.get_secret_value()))
    anybody = settings.model_copy(update={"broker_url": url})
    try:
        with connect(anybody, retries=0) as server:
            server.ping()
            return _danger(settings, server)
    except RedisError:
        return None


def _without_login(url: str) -> str:
    parts = [urlsplit(part) for part in url.split(";")]
    return ";".join(p._replace(netloc=p.netloc.rpartition("@")[2]).geturl() for p in parts)


def _danger(settings: Settings, server: Any) -> str:
    address = address_of(settings)
    if address.username or _users(server) > 1:
        return "others have users of their own"
    if not all(host in LOOPBACK for host, _ in address.hosts):
        return "it is reached from other machines"
    bound = (_config(server, "bind") or "*").split()
    is_closed = all(host.removeprefix("-") in LOOPBACK for host in bound)
    if is_closed or _config(server, "protected-mode") == "yes":
        return ""
    return "it listens for other machines"


def _users(server: Any) -> int:
    try:
        return len(server.execute_command("ACL", "USERS"))
    except ResponseError:  # managed servers forbid it
        return 1


def _config(server: Any, name: str) -> str | None:
    try:
        found = server.config_get(name)
    except ResponseError:  # managed servers forbid CONFIG, and so do the rules in acl.py
        return None
    value = found.get(name)
    return None if value is None else str(value)
