"""Redis and the store answer, and refuse writes: all health checks report it."""

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crossmodal.jobs.acl import Role
from crossmodal.local.valkey import free_port, server_binary, start_valkey
from tests.commands import run_command
from tests.conftest import stack_environment
from tests.exposition import value
from tests.gateway import Gateway, running_gateway
from tests.servers import ADMIN_PASSWORD, Server, user_lines, user_name
from tests.waiting import until

DRAW = {"task": "txt2img", "prompt": "a red circle"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server that outlives a failed write to its disk."""
    tolerant = tmp_path / "tolerant-valkey"
    tolerant.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec '{server_binary()}' \"$@\"\n")
    tolerant.chmod(0o755)
    port = free_port()
    child = start_valkey(
        tmp_path / "valkey", port, ADMIN_PASSWORD, more=[*user_lines()], binary=str(tolerant)
    )
    yield Server(child, port)
    child.kill()


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(stack_environment(server.port, tmp_path), tmp_path) as gateway:
        yield gateway


def make_replica(server: Server, redis: Any) -> None:
    redis.replicaof("127.0.0.1", free_port())


def take_its_replicas(server: Server, redis: Any) -> None:
    redis.config_set("min-replicas-to-write", 1)


def fill_memory(server: Server, redis: Any) -> None:
    redis.config_set("maxmemory", 1)


def lose_snapshots(server: Server, redis: Any) -> None:
    shutil.rmtree(redis.config_get("dir")["dir"])
    redis.config_set("save", "3600 1")
    redis.bgsave()
    until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")


def fill_disk(server: Server, redis: Any) -> None:
    resource.prlimit(server.child.pid or 0, resource.RLIMIT_FSIZE, (0, 0))
    redis.set("anything", "that is written to the append-only file")
    until(lambda: redis.info("persistence")["aof_last_write_status"] == "err")


FAULTS: list[tuple[Callable[[Server, Any], None], str]] = [
    (make_replica, "name its primary in CELERY_BROKER_URL"),
    (take_its_replicas, "Bring its replicas back"),
    (fill_memory, "used up its maxmemory"),
    (lose_snapshots, "Free space on its disk"),
    (fill_disk, "Free space on its disk"),
]


@pytest.mark.parametrize(("fault", "remedy"), FAULTS, ids=lambda it: getattr(it, "__name__", ""))
def test_a_redis_that_takes_no_writes_is_not_well(
    fault: Callable[[Server, Any], None],
    remedy: str,
    server: Server,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    """The gateway is not ready, its metrics and `doctor` report it, and jobs are refused."""
    with server.admin() as redis:
        fault(server, redis)
    assert gateway.http.post("/v1/jobs", json=DRAW).status_code == 503
    until(lambda: gateway.http.get("/readyz").status_code == 503, what="not being ready")
    assert gateway.http.get("/livez").status_code == 200
    assert metric(gateway, "crossmodal_broker_up") == 0
    assert metric(gateway, "crossmodal_store_up") == 1
    env = stack_environment(server.port, tmp_path)
    doctor = run_command(env, "doctor")
    assert doctor.returncode == 1
    assert remedy in " ".join(doctor.stdout.split())
    health = run_command(env, "health", "--writes")
    assert (health.returncode, remedy in health.stderr) == (1, True)


@pytest.mark.parametrize("command", ["evalsha", "lpush"])
def test_a_user_who_may_not_submit_is_not_well(
    server: Server, gateway: Gateway, tmp_path: Path, command: str
) -> None:
    with server.admin() as redis:
        redis.execute_command("ACL", "SETUSER", user_name(Role.WORKER), f"-{command}")
    assert gateway.http.post("/v1/jobs", json=DRAW).status_code == 503
    until(lambda: gateway.http.get("/readyz").status_code == 503, what="not being ready")
    assert metric(gateway, "crossmodal_broker_up") == 0
    doctor = run_command(stack_environment(server.port, tmp_path), "doctor")
    assert doctor.returncode == 1
    assert "BAD   queue" in doctor.stdout


def test_a_redis_that_takes_no_more_jobs_is_not_ready(server: Server, gateway: Gateway) -> None:
    """The memory that is left is for the jobs it has: workers may write."""
    with server.admin() as redis:
        redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 1.05))
    until(lambda: gateway.http.get("/readyz").status_code == 503, what="not being ready")
    assert gateway.http.post("/v1/jobs", json=DRAW).json()["code"] == "broker_full"
    assert metric(gateway, "crossmodal_broker_up") == 1


def test_a_full_store_is_not_well(server: Server, gateway: Gateway) -> None:
    """Reads still succeed."""
    assert metric(gateway, "crossmodal_store_up") == 1
    limit_files(gateway, 0)
    until(lambda: gateway.http.get("/readyz").status_code == 503, what="not being ready")
    assert gateway.http.get("/readyz").json()["code"] == "storage_not_writable"
    assert metric(gateway, "crossmodal_store_up") == 0
    assert metric(gateway, "crossmodal_broker_up") == 1
    limit_files(gateway, resource.RLIM_INFINITY)
    until(lambda: gateway.http.get("/readyz").status_code == 200, what="being ready again")


def metric(gateway: Gateway, name: str) -> float:
    text = gateway.http.get("/metrics").text
    return value(list(text_string_to_metric_families(text)), name)


def limit_files(gateway: Gateway, size: int) -> None:
    """Limit the size of the gateway's files, as on a full disk."""
    psutil.Process(gateway.child.pid).rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
