"""The ledger with methods that run each call, blocking or on an event loop."""

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from crossmodal.jobs.calls import Call
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.settings import Settings
from producer.operators import Waiting
from producer.twins import Runs, waited

T = TypeVar("T")


class OnALoop:
    """A blocking wrapper of an `AsyncRunner` and its private event loop."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.Runner()
        self._runner = AsyncRunner(settings)

    def run(self, call: Call[T], /) -> T:
        return self._loop.run(self._runner.run(call))

    def close(self) -> None:
        self._loop.run(self._runner.close())
        self._loop.close()


class Ledger(Waiting):
    """See `JobLedger`, the type of `calls`."""

    calls: JobLedger

    def __init__(self, settings: Settings, runner: Runs | None = None) -> None:
        super().__init__(JobLedger(settings), runner or Runner(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.runner.close()

    submit = waited(JobLedger.submit)
    cancel = waited(JobLedger.cancel)
    start = waited(JobLedger.start)
    succeed = waited(JobLedger.succeed)
    fail = waited(JobLedger.fail)
    progress = waited(JobLedger.progress)
    watch = waited(JobLedger.watch)
    refuse = waited(JobLedger.refuse)
    release = waited(JobLedger.release)
    disown = waited(JobLedger.disown)
    renew = waited(JobLedger.renew)
    abandon = waited(JobLedger.abandon)
    holds = waited(JobLedger.holds)
    lost = waited(JobLedger.lost)
    is_leased = waited(JobLedger.is_leased)
    requeue = waited(JobLedger.requeue)
    promote = waited(JobLedger.promote)
    cancel_batch = waited(JobLedger.cancel_batch)
    remove = waited(JobLedger.remove)
    forget = waited(JobLedger.forget)

    get = waited(JobLedger.get)
    ended = waited(JobLedger.ended)
    follow = waited(JobLedger.follow)
    history = waited(JobLedger.history)
    inputs = waited(JobLedger.inputs)
    now = waited(JobLedger.now)
    place = waited(JobLedger.place)
    queue = waited(JobLedger.queue)
    status = waited(JobLedger.status)
    webhook = waited(JobLedger.webhook)
