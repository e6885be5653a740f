"""The pool by itself: whatever happens, a job's room is free again and Celery knows its end."""

import os
import select
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.waiting import until
from worker.celery.handover import Bell, Handover
from worker.celery.lanes import Lanes
from worker.celery.pool import CoroutinePool, CoroutineTask, NoCoroutine

WAIT_S = 30


class Echo(CoroutineTask):
    name = "echo"

    async def work(self, request: Mapping[str, Any]) -> Any:
        if request["kwargs"].get("error"):
            raise request["kwargs"]["error"]
        return request["kwargs"].get("say")


class Caller:
    """What Celery is told of one request."""

    def __init__(self, task: CoroutineTask) -> None:
        self._task = task
        self.accepted: int | None = None
        self.ended: tuple[int, Any, float] | None = None
        self.error: Any = None

    def trace(self, *_: Any) -> tuple[int, Any, float]:
        return 0, self._task.run(), 0.0

    def callbacks(self, accept: Any = None) -> dict[str, Any]:
        return {
            "accept_callback": accept or (lambda pid, at: setattr(self, "accepted", pid)),
            "callback": lambda ended: setattr(self, "ended", ended),
            "error_callback": lambda error: setattr(self, "error", error),
        }


@pytest.fixture
def pool() -> Iterator[CoroutinePool]:
    """A pool with room for one interactive job and for one bulk message."""
    app = SimpleNamespace(lanes=Lanes(), tasks={"echo": Echo(), "plain": object()})
    pool = CoroutinePool(1, app=app)
    pool.start()
    yield pool
    pool.terminate()
    assert not pool.loop.is_alive()


def apply(pool: CoroutinePool, name: str = "echo", accept: Any = None, **kwargs: Any) -> Caller:
    caller = Caller(pool.app.tasks["echo"])
    request = {
        "id": "a-job",
        "kwargs": kwargs,
        "delivery_info": {"routing_key": "txt2img"},
        "properties": {"delivery_tag": os.urandom(4).hex()},
    }
    pool.on_apply(caller.trace, (name, "a-job", request), **caller.callbacks(accept))
    return caller


def settle(pool: CoroutinePool) -> None:
    """Conclude what ends until nothing is left."""

    def is_empty() -> bool:
        pool._conclude_ended()
        return not pool._jobs

    until(is_empty, WAIT_S, "the end of all")
    assert not pool.lanes.tags


def test_a_request_is_accepted_and_ends(pool: CoroutinePool) -> None:
    caller = apply(pool, say="hello")
    assert caller.accepted is not None
    settle(pool)
    assert caller.ended is not None
    assert caller.ended[:2] == (0, "hello")
    assert caller.ended[2] > 0


def test_what_there_is_no_room_for_waits_its_turn(pool: CoroutinePool) -> None:
    callers = [apply(pool, say=n) for n in range(3)]
    assert [caller.accepted is not None for caller in callers] == [True, False, False]
    assert pool.info["waiting"] == 2
    settle(pool)
    assert [caller.ended and caller.ended[1] for caller in callers] == [0, 1, 2]


def test_a_task_that_is_no_coroutine_is_refused(pool: CoroutinePool) -> None:
    caller = apply(pool, "plain")
    assert caller.error.type is NoCoroutine
    assert not pool.lanes.tags


@pytest.mark.parametrize("error", [ValueError("unexpected"), SystemExit(1), RecursionError()])
def test_whatever_a_coroutine_raises_frees_its_room(
    pool: CoroutinePool, error: BaseException
) -> None:
    caller = apply(pool, error=error)
    settle(pool)
    assert caller.error is not None  # this Celery takes no exceptions of tasks
    after = apply(pool, say="hello")
    settle(pool)
    assert after.ended is not None


def test_room_is_free_again_after_celery_stumbled_in_accepting(pool: CoroutinePool) -> None:
    def stumble(*_: Any) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    caller = apply(pool, accept=stumble)
    settle(pool)
    assert caller.error.type is RecursionError


def test_what_is_canceled_before_it_began_does_not_begin(pool: CoroutinePool) -> None:
    caller = apply(pool, accept=lambda pid, at: pool.terminate_job(pid), say="hello")
    settle(pool)
    assert (caller.ended, caller.error) == (None, None)  # Celery has said itself how it ended


@pytest.mark.parametrize("has_eventfd", [True, False])
def test_a_bell_wakes_who_polls(has_eventfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_eventfd:
        monkeypatch.delattr(os, "eventfd", raising=False)
    bell = Bell()
    poll = select.poll()
    poll.register(bell.fd, select.POLLIN)
    assert not poll.poll(0)
    for _ in range(100_000 if not has_eventfd else 2):  # more than a pipe holds
        bell.ring()
    assert poll.poll(0)
    bell.hush()
    assert not poll.poll(0)
    bell.close()


def test_many_things_wake_once() -> None:
    wakes: list[int] = []
    handover: Handover[int] = Handover(lambda: wakes.append(1))
    for n in range(3):
        handover.put(n)
    assert (list(handover.take()), len(wakes)) == ([0, 1, 2], 1)
    handover.put(3)
    assert (list(handover.take()), len(wakes)) == ([3], 2)
