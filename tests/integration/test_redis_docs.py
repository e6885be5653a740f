"""docs/redis.md, followed literally: a server with an ACL file lets in who has a password."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from crossmodal.jobs.names import messages_key
from crossmodal.jobs.server import open_to_all
from crossmodal.kinds.task import Task
from crossmodal.local.valkey import free_port, server_binary
from crossmodal.processes import Child
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.servers import BINARY
from tests.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"


def commands() -> list[str]:
    """What the page has an operator type, to give the server its users."""
    section = PAGE.read_text().partition("## Users with least rights")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def program(folder: Path, name: str, *argv: str, more: str = "") -> None:
    """Put a program onto the path that the page takes for granted."""
    file = folder / name
    file.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@" {more}\n')
    file.chmod(0o755)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a server that was set up by the page."""
    port, bin_ = free_port(), tmp_path / "bin"
    bin_.mkdir()
    program(bin_, "crossmodal", sys.executable, "-m", "crossmodal.cli")
    place = f"--port {port} --bind 127.0.0.1 --dir {shlex.quote(str(tmp_path))}"
    program(bin_, "redis-server", BINARY or server_binary(), more=place)
    env = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    *before, start = commands()
    script = "set -e; cd " + shlex.quote(str(tmp_path)) + "\n" + "\n".join(before)
    subprocess.run(["bash", "-c", script], env={**os.environ, **env}, check=True, timeout=60)
    with (tmp_path / "log").open("wb") as log:
        server = Child("redis", ["bash", "-c", f"cd {tmp_path}; exec {start}"], env, log)
        server.start()
    yield port
    server.stop(10)


@pytest.fixture
def users(tmp_path: Path, port: int) -> dict[str, Any]:
    lines = re.findall(r"^user (\S+) on >(\S+)", (tmp_path / "users.acl").read_text(), re.M)
    assert len({password for _, password in lines}) == len(lines) == 3
    return {name: Redis(port=port, username=name, password=password) for name, password in lines}


def test_a_server_that_is_set_up_by_the_page_lets_in_its_users_alone(
    port: int, users: dict[str, Any], tmp_path: Path
) -> None:
    until(lambda: answers(users["admin"]), 15, "the server")
    with Redis(port=port) as anybody, pytest.raises(AuthenticationError):
        anybody.ping()
    assert users["admin"].config_get("appendonly") == {"appendonly": "yes"}
    producer, worker = (
        settings_of(users[f"crossmodal-{role}"], tmp_path) for role in ("producer", "worker")
    )
    with Client(producer) as client:
        client.txt2img("a circle")
    with pytest.raises(NoPermissionError):
        users["crossmodal-producer"].config_get("appendonly")
    assert users["crossmodal-worker"].brpop([messages_key("crossmodal", str(Task("txt2img")))], 1)
    assert open_to_all(worker) is None
    for redis in users.values():
        redis.close()


def answers(redis: Any) -> bool:
    try:
        return bool(redis.ping())
    except OSError:
        return False
    except Exception as e:
        if "refused" in str(e):
            return False
        raise


def settings_of(redis: Any, folder: Path) -> Settings:
    login = redis.connection_pool.connection_kwargs
    url = f"redis://{login['username']}:{login['password']}@127.0.0.1:{login['port']}/0"
    return load_settings(broker_url=url, storage_url=(folder / "storage").as_uri())
