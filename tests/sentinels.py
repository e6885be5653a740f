"""Three Sentinels, a master and two replicas, as real processes on loopback."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from crossmodal.jobs.acl import Role
from crossmodal.local.valkey import free_port, server_binary, start_valkey
from crossmodal.processes import Child
from crossmodal.settings import Settings, load_settings
from tests.servers import ADMIN_PASSWORD, BINARY, PASSWORD, user_lines, user_name
from tests.waiting import until

MASTER = "jobs"
SENTINEL_PASSWORD = "asked by Sentinel"
DOWN_AFTER_MS = 5_000  # long enough that a busy machine causes no failover


@dataclass
class Group:
    """A master with its replicas, and its Sentinels."""

    folder: Path
    servers: dict[int, Child] = field(default_factory=dict)
    sentinels: dict[int, Child] = field(default_factory=dict)

    def settings(self, store: str, **more: Any) -> Settings:
        login = f"{user_name(Role.WORKER)}:{PASSWORD.replace('/', '%2F')}"
        first, *others = self.sentinels
        url = ";".join(
            [
                f"sentinel://{login}@127.0.0.1:{first}/0",
                *(f"sentinel://127.0.0.1:{port}" for port in others),
            ]
        )
        return load_settings(
            broker_url=url,
            result_backend="",
            storage_url=store,
            sentinel_master=MASTER,
            sentinel_password=SENTINEL_PASSWORD,
            **more,
        )

    def master(self) -> int | None:
        """Return the port of the master that most Sentinels report."""
        told = [self._ask(port) for port in self.sentinels]
        return max(set(told), key=told.count)

    def kill_master(self) -> float:
        """Kill the master, and return the seconds until there is another."""
        old = self.master()
        assert old is not None
        began = time.monotonic()
        self.servers[old].kill()
        until(lambda: self.master() not in (None, old), 60, "a failover")
        return time.monotonic() - began

    def revive(self) -> None:
        """Restart killed servers as replicas, and wait until all are in sync."""
        master = self.master()
        assert master is not None
        for port, server in self.servers.items():
            if not server.is_alive:
                self.servers[port] = _server(self.folder, port, master)
        until(lambda: self.replicas_in_step() == len(self.servers) - 1, 60, "its return")

    def replicas_in_step(self) -> int:
        """Return how many replicas are in sync with the master."""
        port = self.master()
        if port is None:
            return 0
        with admin(port) as redis:
            return int(redis.wait(2, 100))

    def _ask(self, port: int) -> int | None:
        try:
            with Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=1) as redis:
                found: Any = redis.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        except RedisError:
            return None
        return int(found[1]) if found else None


@contextmanager
def admin(port: int) -> Iterator[Any]:
    with Redis(port=port, password=ADMIN_PASSWORD, decode_responses=True) as redis:
        yield redis


@contextmanager
def replicated(folder: Path, replicas: int = 2) -> Iterator[Group]:
    """Run a master with replicas in sync, and three Sentinels that know one another."""
    ports = [free_port() for _ in range(1 + replicas)]
    with ExitStack() as stack:
        group = Group(folder)
        stack.callback(_kill_all, group)
        for port in ports:
            group.servers[port] = _server(folder, port, ports[0])
        for _ in range(3):
            port = free_port()
            group.sentinels[port] = start_sentinel(folder, port, ports[0])
            stack.callback(group.sentinels[port].kill)
        until(lambda: all(is_informed(port, replicas) for port in group.sentinels), 30, "Sentinel")
        until(lambda: group.replicas_in_step() == replicas, 30, "replication")
        yield group


def _kill_all(group: Group) -> None:
    for server in group.servers.values():
        server.kill()


def _server(folder: Path, port: int, master: int) -> Child:
    more = [
        f"masterauth {ADMIN_PASSWORD}",
        "repl-diskless-sync-delay 0",
        "min-replicas-to-write 1",
        "min-replicas-max-lag 10",
        *user_lines(),
        *([f"replicaof 127.0.0.1 {master}"] if port != master else []),
    ]
    return start_valkey(folder / str(port), port, ADMIN_PASSWORD, more=more, binary=BINARY)


def start_sentinel(
    folder: Path, port: int, master: int, down_after_ms: int = DOWN_AFTER_MS
) -> Child:
    """Start a Sentinel that monitors the master at port `master`."""
    own = folder / f"sentinel-{port}"
    own.mkdir()
    config = own / "sentinel.conf"  # Sentinel writes to it
    config.write_text(
        "\n".join(
            [
                f"port {port}",
                "bind 127.0.0.1",
                f'dir "{own}"',
                f'requirepass "{SENTINEL_PASSWORD}"',
                f"sentinel monitor {MASTER} 127.0.0.1 {master} 2",
                f"sentinel auth-pass {MASTER} {ADMIN_PASSWORD}",
                f"sentinel down-after-milliseconds {MASTER} {down_after_ms}",
                f"sentinel failover-timeout {MASTER} 10000",
            ]
        )
    )
    with (own / "log").open("ab") as log:
        argv = [BINARY or server_binary(), str(config), "--sentinel"]
        child = Child("sentinel", argv, output=log)
        child.start()
    return child


def is_informed(port: int, replicas: int) -> bool:
    """Whether the Sentinel at this port knows the two others, and all replicas."""
    try:
        with Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=1) as redis:
            known: Any = redis.sentinel_master(MASTER)
    except RedisError:
        return False
    return bool(known["num-other-sentinels"] == 2 and known["num-slaves"] == replicas)
