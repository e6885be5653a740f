"""Whether an attempt's work is still asked for, looked at while it goes on."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from crossmodal.errors import BrokerUnavailable
from worker.host.client import LOOK_S, NoLongerWanted

T = TypeVar("T")


class Wanted:
    """One attempt, as those see it who work for it; callable, to be asked at any time."""

    def __init__(self, holds: Callable[[], bool], threads: ThreadPoolExecutor | None) -> None:
        self._holds = holds
        self._threads = threads
        self._looked_at = time.monotonic()

    def __call__(self) -> bool:
        self._looked_at = time.monotonic()
        try:
            return self._holds()
        except BrokerUnavailable:  # not to know is no reason to stop
            return True

    def check(self) -> None:
        """Raise `NoLongerWanted` if so; a look that is not half a second old is good enough."""
        if time.monotonic() - self._looked_at > LOOK_S and not self():
            raise NoLongerWanted

    def patiently(self, call: Callable[[], T], afterwards: Callable[[], None] = lambda: None) -> T:
        """Have another thread do what may block for long, so that this one can be told to stop.

        Without threads nothing blocks for long, and the call is just made. When the job is not
        wanted any more before `call` has ended, `afterwards` cleans up once it has. Raises
        `NoLongerWanted`, or what `call` raises.
        """
        if self._threads is None:
            return call()
        return self.wait(self._threads.submit(call), afterwards)

    def wait(self, future: Future[T], afterwards: Callable[[], None] = lambda: None) -> T:
        """The result of what another thread does; see `patiently`."""
        while True:
            try:
                return future.result(LOOK_S)
            except TimeoutError:
                if future.done():  # now, or by an error of this kind
                    return future.result()
            if not self():
                future.add_done_callback(lambda _: afterwards())
                raise NoLongerWanted
