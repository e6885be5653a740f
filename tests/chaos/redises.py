"""The Redis of a storm: one server, or a master and a replica with Sentinels.

Each server is behind a proxy, whose port the Sentinels, the replica and all clients use, and keeps
its append-only file on a small disk of its own.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from crossmodal.jobs.acl import Role
from crossmodal.local.valkey import answers, free_port, server_binary
from crossmodal.processes import Child, wait_until
from tests.chaos.clock import Clocks
from tests.chaos.disk import Disk
from tests.chaos.proxy import Proxy
from tests.sentinels import MASTER, SENTINEL_PASSWORD, is_informed, start_sentinel
from tests.servers import ADMIN_PASSWORD, BINARY, Server, start_server, user_url
from tests.waiting import until

DISK_MB = 512
DOWN_AFTER_MS = 120_000  # longer than any fault: only the storm changes masters
ROLE_S = 30.0
START_S = 60.0
# Data is written before the reply, and so outlasts SIGKILL; `always` would end a server whose disk
# is full, `no` refuses writes. The file is rewritten after a failover only.
SAFE = ("appendfsync no", "auto-aof-rewrite-percentage 0")
# A replica notices a forgotten connection soon, and is pinged often before that.
REPLICATION = ("repl-timeout 10", "repl-ping-replica-period 2", "repl-diskless-sync-delay 0")


@dataclass
class Member:
    """A server with its proxy and its disk."""

    folder: Path
    port: int
    proxy: Proxy
    disk: Disk
    server: Server | None = None

    def role(self) -> str | None:
        try:
            with self.admin() as redis:
                return str(redis.execute_command("ROLE")[0])
        except RedisError:
            return None

    @contextmanager
    def admin(self) -> Iterator[Any]:
        with Redis(
            port=self.port, password=ADMIN_PASSWORD, socket_timeout=5, decode_responses=True
        ) as redis:
            yield redis


class Redises:
    """The servers and their Sentinels; `master` is the one that accepts writes."""

    def __init__(self, folder: Path, clocks: Clocks, *, with_sentinel: bool) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._binary = clocks.program(BINARY or server_binary())
        self.members = [self._member(i) for i in range(1 + with_sentinel)]
        self.master = self.members[0]
        self._sentinels: dict[int, Child] = {}
        for member in self.members:
            self._start(member)
        if with_sentinel:
            self._watch()

    def close(self) -> None:
        for child in self._sentinels.values():
            child.kill()
        try:
            for member in self.members:
                if member.server is not None:
                    member.server.stop()
        finally:
            for member in self.members:
                member.proxy.close()
                member.disk.close()

    @property
    def url(self) -> str:
        """The URL for processes with the rights of a worker."""
        if not self._sentinels:
            return user_url(self.master.proxy.port)
        login, _, _ = user_url(0, Role.WORKER).removeprefix("redis://").rpartition("@")
        first, *others = self._sentinels
        return ";".join(
            [
                f"sentinel://{login}@127.0.0.1:{first}/0",
                *(f"sentinel://127.0.0.1:{port}" for port in others),
            ]
        )

    @property
    def environment(self) -> dict[str, str]:
        more = {
            "CROSSMODAL_SENTINEL_MASTER": MASTER,
            "CROSSMODAL_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }
        return {"CELERY_BROKER_URL": self.url, **(more if self._sentinels else {})}

    @property
    def server(self) -> Server:
        assert self.master.server is not None
        return self.master.server

    def answers(self) -> bool:
        return answers(self.server.admin_url)

    def restart(self, number: signal.Signals) -> None:
        """End the master and start it again, in its place."""
        server = self.server
        assert not server.denied()  # the next server has no record of it
        server.child.send(number)
        assert server.child.wait(30)
        self._start(self.master)

    def fail_over(self) -> bool:
        """Make Sentinel promote the replica, without losing a write."""
        if not self._sentinels or not self._is_in_step():
            return False
        [other] = [member for member in self.members if member is not self.master]
        try:
            with Redis(port=next(iter(self._sentinels)), password=SENTINEL_PASSWORD) as redis:
                redis.execute_command("SENTINEL", "FAILOVER", MASTER, "COORDINATED")
        except RedisError:  # the last failover still runs, or the replica lags
            return False
        if not wait_until(lambda: other.role() == "master", ROLE_S):
            return False
        self.master = other
        return True

    def rewrite(self) -> None:
        """Replace the append-only file, as is due after a full disk (docs/redis.md)."""
        assert wait_until(lambda: self._is_written() and not self._is_rewriting(), START_S)
        with self.master.admin() as redis:
            redis.bgrewriteaof()
        assert wait_until(lambda: not self._is_rewriting(), START_S)
        assert self._persistence()["aof_last_bgrewrite_status"] == "ok"

    def _is_written(self) -> bool:
        return bool(self._persistence()["aof_last_write_status"] == "ok")

    def _is_rewriting(self) -> bool:
        found = self._persistence()
        return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])

    def _persistence(self) -> dict[str, Any]:
        with self.master.admin() as redis:
            found: dict[str, Any] = redis.info("persistence")
        return found

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Make the master refuse writes, as a replica of an unused port; it keeps its data."""
        with self.master.admin() as redis:
            redis.execute_command("REPLICAOF", "127.0.0.1", "1")
            try:
                yield
            finally:
                redis.execute_command("REPLICAOF", "NO", "ONE")

    def _member(self, number: int) -> Member:
        port, folder = free_port(), self._folder / str(number)
        return Member(folder, port, Proxy(port), Disk(folder, DISK_MB))

    def _start(self, member: Member) -> None:
        more = [*SAFE, *REPLICATION, "replica-announce-ip 127.0.0.1"]
        more += [f"replica-announce-port {member.proxy.port}", f"masterauth {ADMIN_PASSWORD}"]
        if member is not self.master:
            more.append(f"replicaof 127.0.0.1 {self.master.proxy.port}")
        member.server = start_server(member.folder, member.port, more=more, binary=self._binary)

    def _watch(self) -> None:
        for _ in range(3):
            port = free_port()
            self._sentinels[port] = start_sentinel(
                self._folder, port, self.master.proxy.port, DOWN_AFTER_MS
            )
        until(lambda: all(is_informed(port, 1) for port in self._sentinels), START_S, "Sentinel")
        until(self._is_in_step, START_S, "replication")

    def _is_in_step(self) -> bool:
        """Return whether the replica has all that the master has; before, writes would wait."""
        try:
            with self.master.admin() as redis:
                redis.set("storm:step", "", ex=60)
                return bool(redis.wait(1, 1_000))
        except RedisError:
            return False
