"""Calls to Redis: the same ones, run waiting and on an event loop."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs import names, together
from crossmodal.jobs.calls import (
    Atomic,
    Blocking,
    Call,
    Pause,
    Script,
    Steps,
    Waiting,
    call,
    redis,
    undecoded,
)
from crossmodal.jobs.connection import connect
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.settings import Settings
from tests.waiting import until

Run = Callable[[Call[Any]], Any]


def on_a_loop(settings: Settings, *calls: Call[Any]) -> list[Any]:
    """What each comes to, all asked at once on one event loop."""

    async def run() -> list[Any]:
        runner = AsyncRunner(settings)
        try:
            return await asyncio.gather(*map(runner.run, calls), return_exceptions=True)
        finally:
            await runner.close()

    return asyncio.run(run())


@pytest.fixture(params=["waiting", "loop"])
def run(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Run]:
    runner = Runner(settings)

    def loop(call: Call[Any]) -> Any:
        [found] = on_a_loop(settings, call)
        if isinstance(found, Exception):
            raise found
        return found

    yield runner.run if request.param == "waiting" else loop
    runner.close()


@pytest.fixture
def key(settings: Settings) -> str:
    return f"{settings.key_prefix}:runners"


@call
def noted(key: str, value: str) -> Steps[dict[str, str]]:
    yield redis.hset(key, "value", value)
    fields: dict[str, str] = yield redis.hgetall(key)
    return fields


def test_each_step_has_the_reply_to_the_one_before(run: Run, key: str) -> None:
    assert run(noted(key, "a")) == {"value": "a"}


def test_commands_that_travel_together_have_a_list_of_replies(run: Run, key: str) -> None:
    @call
    def several() -> Steps[Any]:
        return (yield [redis.rpush(key, "a", "b"), redis.lrange(key, 0, -1), redis.time()])

    length, items, (seconds, _) = run(several())
    assert (length, items) == (2, ["a", "b"])
    assert seconds > 1_000_000_000


def test_atomic_commands_have_a_list_of_replies(run: Run, key: str) -> None:
    @call
    def several() -> Steps[Any]:
        return (yield Atomic([redis.set(key, "a"), redis.get(key)]))

    assert run(several()) == [True, "a"]


def test_a_call_is_made_of_calls(run: Run, key: str) -> None:
    @call
    def both() -> Steps[list[dict[str, str]]]:
        first = yield from noted(key, "a")
        return [first, (yield from noted(key, "b"))]

    assert run(both()) == [{"value": "a"}, {"value": "b"}]


def test_what_waits_elsewhere_is_a_step_too(run: Run) -> None:
    @call
    def elsewhere() -> Steps[int]:
        found: int = yield Blocking(lambda: 7)
        return found

    assert run(elsewhere()) == 7


def test_a_pause_has_no_reply(run: Run) -> None:
    @call
    def resting() -> Steps[Any]:
        return (yield Pause(0.001))

    assert run(resting()) is None


def test_a_call_may_handle_what_a_step_raises(run: Run) -> None:
    @call
    def careful() -> Steps[str]:
        try:
            yield Blocking(lambda: 1 // 0)
        except ZeroDivisionError:
            return "handled"
        return "not raised"

    assert run(careful()) == "handled"


def test_what_a_call_raises_comes_out(run: Run, key: str) -> None:
    @call
    def failing() -> Steps[None]:
        yield redis.get(key)
        raise KeyError("it")

    with pytest.raises(KeyError, match="it"):
        run(failing())


def test_a_command_that_waits_is_answered(run: Run, key: str) -> None:
    @call
    def waiting() -> Steps[Any]:
        entry = yield redis.xadd(key, {"a": "b"})
        [[stream, entries]] = yield Waiting(redis.xread({key: "0"}, block=1_000))
        return stream, entries == [(entry, {"a": "b"})]

    assert run(waiting()) == (key, True)


def test_bytes_stay_bytes_where_they_are_asked_for(run: Run, key: str) -> None:
    @call
    def odd() -> Steps[Any]:
        yield redis.set(key, b"\xff\x00")
        return (yield undecoded(redis.get(key)))

    assert run(odd()) == b"\xff\x00"


@pytest.mark.parametrize("alone", [True, False])
def test_a_server_that_has_forgotten_its_scripts_is_given_them_again(
    run: Run, settings: Settings, admin: Any, alone: bool
) -> None:
    job = names.new_job_id()
    script = Script(
        "remove", (names.job_key(settings.key_prefix, job),), (settings.key_prefix, job, 1)
    )

    @call
    def removed() -> Steps[Any]:
        return (yield script) if alone else (yield [script, script])

    admin.script_flush()
    reply = run(removed())
    assert (reply if alone else reply[1])[0] == "unknown"


def test_an_error_reply_is_translated(run: Run, key: str) -> None:
    @call
    def wrong() -> Steps[Any]:
        return (yield [redis.set(key, "a"), redis.lrange(key, 0, -1)])

    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        run(wrong())


def test_a_server_that_is_away_is_said_to_be(settings: Settings) -> None:
    away = settings.model_copy(
        update={"broker_url": type(settings.broker_url)("redis://127.0.0.1:1/0")}
    )
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        Runner(away).run(noted("x:key", "a"))
    [found] = on_a_loop(away, noted("x:key", "a"))
    assert isinstance(found, BrokerUnavailable)


@call
def noted_at_once(key: str, value: str) -> Steps[dict[str, str]]:
    _, fields = yield Atomic([redis.hset(key, "value", value), redis.hgetall(key)])
    found: dict[str, str] = fields
    return found


@pytest.mark.parametrize("noting", [noted, noted_at_once])
def test_what_is_asked_in_one_turn_travels_together(
    settings: Settings, key: str, noting: Callable[[str, str], Call[Any]]
) -> None:
    async def count() -> int:
        runner = AsyncRunner(settings)
        await runner.run(noted(key, "a"))
        made: list[int] = []
        pipeline = runner.redis.pipeline

        def counted(*args: Any) -> Any:
            made.append(1)
            return pipeline(*args)

        runner.redis.pipeline = counted
        asked = {value: noting(f"{key}:{value}", value) for value in map(str, range(200))}
        found = await asyncio.gather(*map(runner.run, asked.values()))
        assert found == [{"value": value} for value in asked]
        await runner.close()
        return len(made)

    assert asyncio.run(count()) <= 4  # two steps each, or one


def test_a_runner_goes_from_one_event_loop_to_the_next(settings: Settings, key: str) -> None:
    runner = AsyncRunner(settings)
    for value in "abc":
        assert asyncio.run(runner.run(noted(key, value))) == {"value": value}
        gc.collect()  # of what was left open, Python would warn
    asyncio.run(runner.close())


def test_what_an_event_loop_left_undone_is_none_of_the_next_ones(
    settings: Settings, key: str
) -> None:
    runner = AsyncRunner(settings)

    @call
    def endless() -> Steps[Any]:
        return (yield Waiting(redis.xread({key: "0"}, block=500)))

    async def leave() -> None:
        asked = [asyncio.create_task(runner.run(endless())) for _ in range(3)]
        await runner.run(noted(f"{key}:hash", "a"))
        assert not any(task.done() for task in asked)

    asyncio.run(leave())
    assert asyncio.run(runner.run(noted(f"{key}:hash", "b"))) == {"value": "b"}
    asyncio.run(runner.close())


def test_connections_end_with_the_event_loop_they_were_made_in(
    settings: Settings, admin: Any
) -> None:
    runner = AsyncRunner(settings, what="ending")
    asyncio.run(runner.run(noted(f"{settings.key_prefix}:ending", "a")))
    until(lambda: not any(":ending:" in client["name"] for client in admin.client_list()), 10)


def test_an_error_reply_harms_only_its_own_call(settings: Settings, key: str) -> None:
    @call
    def wrong() -> Steps[Any]:
        return (yield redis.lrange(f"{key}:text", 0, -1))

    with connect(settings) as raw:
        raw.set(f"{key}:text", "a")
    good, bad = on_a_loop(settings, noted(key, "a"), wrong())
    assert good == {"value": "a"}
    assert isinstance(bad, BrokerUnavailable)


def test_an_error_reply_harms_only_its_own_of_many_atomic_calls(
    settings: Settings, key: str
) -> None:
    @call
    def wrong() -> Steps[Any]:
        return (yield Atomic([redis.lrange(f"{key}:text", 0, -1), redis.get(f"{key}:text")]))

    with connect(settings) as raw:
        raw.set(f"{key}:text", "a")
    good, bad, other = on_a_loop(
        settings, noted_at_once(key, "a"), wrong(), noted_at_once(f"{key}:b", "b")
    )
    assert (good, other) == ({"value": "a"}, {"value": "b"})
    assert isinstance(bad, BrokerUnavailable)


def test_a_script_that_cannot_be_loaded_harms_only_its_own_call(
    settings: Settings, key: str, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @call
    def counted() -> Steps[Any]:
        return (yield redis.hincrby(key, "count", 1))

    @call
    def unknown() -> Steps[Any]:
        return (yield Script("remove", (f"{key}:job",), (settings.key_prefix, "x", 1)))

    monkeypatch.setattr(together, "script", lambda _: "this is no Lua")
    admin.script_flush()
    count, refused = on_a_loop(settings, counted(), unknown())
    assert count == 1
    assert isinstance(refused, BrokerUnavailable)


@pytest.mark.parametrize("is_atomic", [False, True])
def test_what_is_no_text_harms_no_call(settings: Settings, key: str, is_atomic: bool) -> None:
    @call
    def read(of: str) -> Steps[Any]:
        [found] = yield Atomic([redis.get(of)]) if is_atomic else [redis.get(of)]
        return found

    with connect(settings) as raw:
        raw.set(key, b"\xff!")
        raw.set(f"{key}:good", "good")
    assert on_a_loop(settings, read(key), read(f"{key}:good")) == ["\ufffd!", "good"]


def test_what_was_asked_before_the_end_is_answered_in_all_its_steps(
    settings: Settings, key: str
) -> None:
    @call
    def by_turns() -> Steps[Any]:
        for _ in range(3):
            yield redis.set(key, "a")
            [found] = yield Atomic([redis.get(key)])
        return found

    async def scenario() -> Any:
        runner = AsyncRunner(settings)
        await runner.run(by_turns())
        asked = asyncio.create_task(runner.run(by_turns()))
        await asyncio.sleep(0)
        await runner.close()
        return await asked

    assert asyncio.run(scenario()) == "a"


def test_nobody_waits_for_the_connections_of_others_to_a_server_that_hangs(
    settings: Settings,
) -> None:
    """Each gives up after the timeout, and not after those of all before it."""

    @call
    def waiting() -> Steps[Any]:
        return (yield Waiting(redis.xread({"key": "0"}, block=1)))

    async def connected(server: socket.socket) -> None:
        url = type(settings.broker_url)(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        patient = settings.model_copy(update={"broker_url": url, "connect_timeout_s": 60.0})
        runner = AsyncRunner(patient)
        asked = [asyncio.create_task(runner.run(waiting())) for _ in range(5)]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            accepted = [(await loop.sock_accept(server))[0] for _ in asked]
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await runner.close()
        for connection in accepted:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        asyncio.run(connected(server))


def test_a_call_that_is_canceled_harms_no_other(settings: Settings, key: str) -> None:
    async def run() -> dict[str, str]:
        runner = AsyncRunner(settings)
        leaving = asyncio.create_task(runner.run(noted(f"{key}:a", "a")))
        staying = asyncio.create_task(runner.run(noted(f"{key}:b", "b")))
        await asyncio.sleep(0)
        leaving.cancel()
        found = await staying
        await runner.close()
        return found

    assert asyncio.run(run()) == {"value": "b"}


def test_a_command_that_cannot_be_written_harms_only_its_own_call(
    settings: Settings, key: str
) -> None:
    @call
    def odd() -> Steps[Any]:
        return (yield redis.get("\ud800"))

    good, bad = on_a_loop(settings, noted(key, "a"), odd())
    assert good == {"value": "a"}
    assert isinstance(bad, UnicodeEncodeError)


def test_what_was_asked_before_the_end_is_answered(settings: Settings, key: str) -> None:
    async def scenario() -> list[dict[str, str]]:
        runner = AsyncRunner(settings)
        asked = [asyncio.create_task(runner.run(noted(f"{key}:{i}", "a"))) for i in range(2)]
        await asyncio.sleep(0)
        await runner.close()
        found = [await runner.run(noted(key, "b"))]
        async with asyncio.timeout(10):
            found += await asyncio.gather(*asked)
        await runner.close()
        return found

    assert asyncio.run(scenario()) == [{"value": "b"}, {"value": "a"}, {"value": "a"}]
