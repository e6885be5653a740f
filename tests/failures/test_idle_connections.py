"""Idle connections that a NAT forgets or a load balancer resets are replaced without a delay."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.acl import Role
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings, load_settings
from producer import AsyncClient, Client
from tests.chaos.clock import Clocks
from tests.chaos.proxy import Behaviour, Proxy
from tests.chaos.redises import Redises
from tests.servers import Server, start_server
from tests.toys import ToyWorker, toy_worker
from tests.waiting import until

WAIT_S = 60
IDLE_S = 2.0
SPELLS = [Behaviour(forgets_after_s=1.5 * IDLE_S), Behaviour(resets_after_s=1.5 * IDLE_S)]
HOW = pytest.mark.parametrize("behaviour", SPELLS, ids=["forgets", "resets"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("idle") / "valkey")
    yield server
    server.child.stop(10)


@contextmanager
def between(server: Server, role: Role, folder: Path) -> Iterator[tuple[Proxy, Settings]]:
    """Yield a proxy before the server, and settings that use it."""
    proxy = Proxy(server.port)
    url = server.url(role).replace(f":{server.port}/", f":{proxy.port}/")
    try:
        yield (
            proxy,
            load_settings(
                broker_url=url,
                result_backend="",
                storage_url=(folder / "storage").as_uri(),
                max_idle_s=IDLE_S,
            ),
        )
    finally:
        proxy.close()


def idle(proxy: Proxy, behaviour: Behaviour) -> None:
    """Set the proxy's behavior, and send nothing until it must have dropped all connections."""
    proxy.behaviour = behaviour
    since, dropped_s = time.monotonic(), behaviour.forgets_after_s + behaviour.resets_after_s
    until(lambda: time.monotonic() - since > dropped_s + 0.5, WAIT_S)


@HOW
def test_the_first_call_of_an_idle_client_is_as_fast_as_any(
    server: Server, tmp_path: Path, behaviour: Behaviour
) -> None:
    with between(server, Role.PRODUCER, tmp_path) as (proxy, settings), Client(settings) as client:
        client.queues()
        idle(proxy, behaviour)
        begun = time.monotonic()
        client.queues()
        client.txt2img("a circle")
        assert time.monotonic() - begun < settings.connect_timeout_s
    assert proxy.forgotten == 0  # nothing was sent over a forgotten connection


async def asked_after_idling(
    server: Server, tmp_path: Path, behaviour: Behaviour
) -> tuple[float, int]:
    with between(server, Role.PRODUCER, tmp_path) as (proxy, settings):
        async with AsyncClient(settings) as client:
            await client.queues()
            await asyncio.to_thread(idle, proxy, behaviour)
            begun = time.monotonic()
            await client.queues()
            return time.monotonic() - begun, proxy.forgotten


@HOW
def test_so_it_is_for_an_asynchronous_client(
    server: Server, tmp_path: Path, behaviour: Behaviour
) -> None:
    took_s, forgotten = asyncio.run(asked_after_idling(server, tmp_path, behaviour))
    assert took_s < 5.0
    assert forgotten == 0


@pytest.fixture
def worker(server: Server, tmp_path: Path) -> Iterator[tuple[Proxy, ToyWorker]]:
    with (
        between(server, Role.WORKER, tmp_path) as (proxy, settings),
        server.admin() as admin,
        toy_worker(
            settings.model_copy(update={"broker_url": SecretStr(server.url(Role.WORKER))}),
            admin,
            tmp_path / "worker",
            4,
            CELERY_BROKER_URL=settings.broker_url.get_secret_value(),
            CROSSMODAL_MAX_IDLE_S=str(IDLE_S),
            CROSSMODAL_CONNECT_TIMEOUT_S="2",
            CROSSMODAL_HEARTBEAT_FILE=str(tmp_path / "beat"),
        ) as worker,
    ):
        yield proxy, worker


def subscribers(worker: ToyWorker) -> list[str]:
    return [one["id"] for one in worker.redis.client_list(_type="pubsub")]


@HOW
def test_remote_control_is_kept_warm(worker: tuple[Proxy, ToyWorker], behaviour: Behaviour) -> None:
    proxy, toys = worker
    toys.inspect("ping")
    before = subscribers(toys)
    patient = 3 * behaviour.forgets_after_s, 3 * behaviour.resets_after_s
    idle(proxy, Behaviour(forgets_after_s=patient[0], resets_after_s=patient[1]))
    assert toys.inspect("ping") == {"ok": "pong"}
    assert subscribers(toys) == before
    assert "Trying to re-establish" not in toys.log


def test_a_worker_whose_connections_are_forgotten_makes_others_and_hears_again(
    worker: tuple[Proxy, ToyWorker],
) -> None:
    """They are forgotten while in use: a connection without an answer in time is replaced."""
    proxy, toys = worker
    toys.inspect("ping")
    before = set(subscribers(toys))
    running = toys.send(sleep_s=3)
    until(lambda: toys.in_hand == 1, WAIT_S, "a toy in hand")  # noted in Redis
    proxy.forget()
    until(lambda: bool(set(subscribers(toys)) - before), WAIT_S, "another subscription")
    assert toys.inspect("ping") == {"ok": "pong"}
    after = toys.send()
    until(lambda: toys.made[after] == 1 and toys.made[running] >= 1, WAIT_S)


def test_so_does_a_worker_that_finds_redis_through_sentinels(tmp_path: Path) -> None:
    (tmp_path / "clocks").mkdir()
    redis = Redises(tmp_path / "redis", Clocks(tmp_path / "clocks"), with_sentinel=True)
    settings = load_settings(
        broker_url=redis.server.url(Role.WORKER),
        result_backend="",
        storage_url=(tmp_path / "storage").as_uri(),
    )
    warm = {"CROSSMODAL_MAX_IDLE_S": str(IDLE_S), "CROSSMODAL_CONNECT_TIMEOUT_S": "2"}
    with (
        closing(redis),
        redis.server.admin() as admin,
        toy_worker(settings, admin, tmp_path / "worker", 4, 2, **redis.environment, **warm) as toys,
    ):
        toys.inspect("ping")
        before = set(subscribers(toys))
        redis.master.proxy.forget()
        until(lambda: bool(set(subscribers(toys)) - before), WAIT_S, "another subscription")
        assert toys.inspect("ping") == {"ok": "pong"}


def test_a_worker_whose_connections_are_reset_does_not_begin_anew(
    worker: tuple[Proxy, ToyWorker],
) -> None:
    proxy, toys = worker
    toys.inspect("ping")
    for _ in range(3):
        before = toys.log.count("is lost: ")
        proxy.reset()
        until(lambda before=before: toys.log.count("is lost: ") > before, WAIT_S)  # type: ignore[misc]
        job = toys.send()
        until(lambda job=job: toys.made[job] == 1, WAIT_S)  # type: ignore[misc]
    assert toys.inspect("ping") == {"ok": "pong"}
    assert toys.log.count("Trying to re-establish") == 0


def test_the_heartbeat_goes_on_while_remote_control_is_silent_and_warm(
    worker: tuple[Proxy, ToyWorker], tmp_path: Path
) -> None:
    beat = tmp_path / "beat"
    until(beat.exists, WAIT_S)
    before = beat.stat().st_mtime
    until(lambda: beat.stat().st_mtime > before + 3 * IDLE_S, WAIT_S, "the heartbeat")


def test_one_call_pays_for_a_nat_that_has_lost_its_state(server: Server, tmp_path: Path) -> None:
    """Its failure closes the idle connections, which are as dead as its own."""
    with between(server, Role.PRODUCER, tmp_path) as (proxy, settings):
        patient = settings.model_copy(update={"max_idle_s": 300.0, "connect_timeout_s": 2.0})
        with Runner(patient) as runner:
            pool = runner.redis.connection_pool
            for one in [pool.get_connection() for _ in range(3)]:
                pool.release(one)
            proxy.forget()
            with pytest.raises(BrokerUnavailable, match="did not answer"):
                runner.run(Workers(settings).recent())
            held = [pool.get_connection() for _ in range(3)]  # all that are in the pool
            for one in held:
                one.send_command("PING")
            assert [one.read_response() for one in held] == ["PONG"] * 3


async def asked_after_a_loss(server: Server, tmp_path: Path) -> list[object]:
    with between(server, Role.PRODUCER, tmp_path) as (proxy, settings):
        patient = settings.model_copy(update={"max_idle_s": 300.0, "connect_timeout_s": 2.0})
        runner = AsyncRunner(patient)
        await runner.run(Workers(settings).recent())
        pool = runner.redis.connection_pool
        for one in [await pool.get_connection() for _ in range(3)]:
            await pool.release(one)
        await asyncio.to_thread(proxy.forget)
        with pytest.raises(BrokerUnavailable, match="did not answer"):
            await runner.run(Workers(settings).recent())
        held = [await pool.get_connection() for _ in range(3)]
        for one in held:
            await one.send_command("PING")
        answers = [await one.read_response() for one in held]
        await runner.close()
        return answers


def test_so_does_one_asynchronous_call(server: Server, tmp_path: Path) -> None:
    assert asyncio.run(asked_after_a_loss(server, tmp_path)) == ["PONG"] * 3
