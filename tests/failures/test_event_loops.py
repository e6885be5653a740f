"""One asynchronous client in many event loops, as when all of an app shares a module's client."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as LostConnection

from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.settings import Settings
from producer import AsyncClient

LOOPS = 4


@pytest.fixture
def client(settings: Settings) -> Iterator[AsyncClient]:
    """Yield a client that was not used; Python would warn of connections left open."""
    client = AsyncClient(settings)
    yield client
    asyncio.run(client.close())


async def canceled(client: AsyncClient) -> str:
    job = await client.txt2img("a red circle")
    await asyncio.sleep(0)
    return (await job.cancel()).value


async def many(client: AsyncClient) -> list[str]:
    return await asyncio.gather(*(canceled(client) for _ in range(20)))


def test_loops_that_run_at_once_in_threads_share_a_client(client: AsyncClient) -> None:
    def run(_: int) -> list[str]:
        return [state for _ in range(3) for state in asyncio.run(many(client))]

    with ThreadPoolExecutor(LOOPS) as threads:
        states = [state for some in threads.map(run, range(LOOPS)) for state in some]
    assert states == ["canceled"] * (LOOPS * 3 * 20)


def test_loops_that_take_turns_keep_their_connections(client: AsyncClient, admin: Any) -> None:
    with asyncio.Runner() as one, asyncio.Runner() as other:
        for runner in (one, other):
            runner.run(canceled(client))
        before = _connections(admin)
        for runner in (one, other) * 3:
            assert runner.run(canceled(client)) == "canceled"
        assert _connections(admin) == before


def test_a_client_that_is_closed_in_one_loop_goes_on_in_another(client: AsyncClient) -> None:
    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert [one.run(canceled(client)), other.run(canceled(client))] == ["canceled"] * 2
        one.run(client.close())
        assert [one.run(canceled(client)), other.run(canceled(client))] == ["canceled"] * 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_not_shut_down_leaves_the_next_one_a_client(client: AsyncClient) -> None:
    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(canceled(client)) == "canceled"
        loop.close()  # where asyncio.run would have ended its generators
    assert asyncio.run(canceled(client)) == "canceled"
    gc.collect()  # Python warns of the closed loops' connections now, not in a later test


def _connections(admin: Any) -> set[str]:
    return {entry["id"] for entry in admin.client_list() if entry["user"] != "default"}


async def ping(connection: Any) -> None:
    await connection.send_command("PING")
    await connection.read_response()


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_ends_before_a_command_is_written_is_lost_as_any_other(
    settings: Settings, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> bool:
        runner = AsyncRunner(settings, retries=0)
        await runner.run(JobLedger(settings).now())
        connection = await runner.redis.connection_pool.get_connection()
        connection._writer.transport.abort()  # as a reset does, between the check and the command
        await asyncio.sleep(0)
        with pytest.raises(LostConnection):
            await ping(connection)
        await runner.redis.connection_pool.release(connection)
        await runner.run(JobLedger(settings).now())
        await runner.close()
        return True

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main())
