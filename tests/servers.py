"""Redis servers as an operator would run them, with least-privilege users.

`CROSSMODAL_TEST_REDIS_SERVER=/usr/bin/redis-server` runs the tests on another server.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis

from crossmodal.jobs.acl import Role, hashed, rules, user_line
from crossmodal.local.valkey import free_port, server_binary, start_valkey, valkey_url
from crossmodal.processes import Child
from crossmodal.settings import DEFAULT_KEY_PREFIX, load_settings

PASSWORD = "user's secret/1"
ADMIN_PASSWORD = "test-secret"
SHOWN = ("username", "reason", "object", "context")
BINARY = os.environ.get("CROSSMODAL_TEST_REDIS_SERVER") or None


@dataclass(frozen=True)
class Server:
    """A running server; `stop` fails if it unexpectedly denied a user something."""

    child: Child
    port: int

    @property
    def admin_url(self) -> str:
        return valkey_url(self.port, ADMIN_PASSWORD)

    def url(self, role: Role = Role.WORKER, prefix: str = DEFAULT_KEY_PREFIX) -> str:
        return user_url(self.port, role, prefix)

    @contextmanager
    def admin(self, **options: Any) -> Iterator[Any]:
        with Redis.from_url(self.admin_url, decode_responses=True, **options) as redis:
            yield redis

    def add_users(self, prefix: str) -> None:
        """Add the users of a key prefix."""
        with self.admin() as redis:
            for line in user_lines(prefix):
                redis.execute_command("ACL", "SETUSER", *line.split(" ")[1:])

    def stop(self) -> None:
        try:
            denied = self.denied() if self.child.is_alive else []
        finally:
            self.child.stop(10)
        assert not denied, f"an ACL user was denied what it needs: {denied}"

    def denied(self) -> list[dict[str, Any]]:
        """Return what the server has denied its users, except the admin."""
        with self.admin() as redis:
            refused = [entry for entry in redis.acl_log() if entry["username"] != "default"]
        return [
            {k: entry[k] for k in ("username", "reason", "object", "context")} for entry in refused
        ]


def start_server(
    folder: Path,
    port: int | None = None,
    *,
    is_safe: bool = False,
    more: Sequence[str] = (),
    binary: str | None = BINARY,
) -> Server:
    """Start a server with the two users of the default prefix, and an admin for the tests.

    A safe one syncs each write to its files before it answers: SIGKILL or a copy loses nothing.
    """
    port = port or free_port()
    safe = ["appendfsync always"] if is_safe else []
    lines = ["acllog-max-len 1000", *user_lines(), *safe, *more]
    return Server(start_valkey(folder, port, ADMIN_PASSWORD, more=lines, binary=binary), port)


def user_name(role: Role, prefix: str = DEFAULT_KEY_PREFIX) -> str:
    return f"{prefix}-{role}"


def user_url(port: int, role: Role = Role.WORKER, prefix: str = DEFAULT_KEY_PREFIX) -> str:
    login = f"{quote(user_name(role, prefix))}:{quote(PASSWORD, safe='')}"
    return f"redis://{login}@127.0.0.1:{port}/0"


def user_lines(prefix: str = DEFAULT_KEY_PREFIX, binary: str | None = BINARY) -> Iterable[str]:
    """Yield users as lines of a server's configuration, with rights for a result backend."""
    settings = load_settings(key_prefix=prefix, result_backend="redis://")
    for role in Role:
        rights = rules(settings, role, version_of(binary or server_binary()))
        yield user_line(user_name(role, prefix), hashed(PASSWORD), rights)


@cache
def version_of(binary: str) -> tuple[int, int]:
    """Return the server's version in Redis's numbering: the first Valkey followed Redis 7.2."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"v=(\d+)\.(\d+)", said)[0]
    return int(major), int(minor)


def forget_all(redis: Any, prefix: str) -> None:
    """Delete every key of a prefix."""
    for key in redis.scan_iter(f"{prefix}:*", count=1_000):
        redis.delete(key)
