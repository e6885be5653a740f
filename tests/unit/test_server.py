"""What a Redis server's memory and configuration mean for the jobs it is given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from crossmodal.errors import BrokerFull, BrokerUnavailable
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.record import JobState
from crossmodal.jobs.server import CHECK_S, eviction_policy, keeps_data, warnings
from crossmodal.local.valkey import answers, free_port, start_valkey, valkey_url
from crossmodal.settings import Settings
from producer import Client
from tests.servers import Server, start_server
from tests.waiting import until


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    """A server that this test may configure."""
    server = start_server(tmp_path / "valkey")
    server.add_users(settings.key_prefix)
    yield server
    server.stop()


@pytest.fixture
def own(settings: Settings, server: Server) -> Settings:
    """Settings of a user of that server."""
    url = SecretStr(server.url(prefix=settings.key_prefix))
    return settings.model_copy(update={"broker_url": url, "max_memory_ratio": 0.2})


@pytest.fixture
def redis(server: Server) -> Iterator[Any]:
    with server.admin() as redis:
        yield redis


def test_the_embedded_server_gives_no_reason_to_warn(redis: Any) -> None:
    assert warnings(redis) == []
    assert keeps_data(redis)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"valkey\.log ends with '.*allkeys-lru"):
        start_valkey(tmp_path, free_port(), more=["maxmemory-policy never"])


def test_a_server_that_evicts_is_warned_of(redis: Any) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    assert eviction_policy(redis) == "allkeys-lru"
    [warning] = warnings(redis)
    assert "noeviction" in warning


def test_a_server_that_keeps_nothing_is_warned_of(redis: Any) -> None:
    redis.config_set("appendonly", "no")
    [warning] = warnings(redis)
    assert "appendonly yes" in warning
    redis.config_set("save", "3600 1")
    assert warnings(redis) == []


def test_submit_refuses_before_redis_must_and_takes_jobs_again(own: Settings, redis: Any) -> None:
    with Client(own) as client:
        job = client.txt2img("a circle")
        redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 3))
        until(lambda: refuses(client), 5 * CHECK_S)
        assert client.cancel(job.id) is JobState.CANCELED  # what is there can still end
        redis.config_set("maxmemory", 0)
        until(lambda: not refuses(client), 5 * CHECK_S)


def test_a_server_without_any_memory_left_is_full_and_not_away(own: Settings, redis: Any) -> None:
    redis.config_set("maxmemory", 1)
    with pytest.raises(BrokerFull, match="maxmemory"), broker_errors(own):
        redis.set("key", "value")


def refuses(client: Client) -> bool:
    try:
        client.txt2img("a circle")
    except BrokerFull:
        return True
    return False


def test_a_folder_of_any_name_keeps_the_data(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\c # d\n'
    port = free_port()
    child = start_valkey(folder, port)
    try:
        assert answers(valkey_url(port))
        assert (folder / "appendonlydir").is_dir()
    finally:
        child.stop(10)
