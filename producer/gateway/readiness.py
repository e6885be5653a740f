"""Write checks of Redis and the store, each shared by all concurrent callers."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from crossmodal.errors import CrossmodalError

FRESH_S = 1.0  # for which a result is reused


class Readiness:
    """A check that never runs concurrently, and whose result is reused for `FRESH_S`."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._task: asyncio.Task[CrossmodalError | None] | None = None
        self._fresh_until = 0.0

    async def check(self) -> None:
        """Run the check, or reuse its result. Raises what it raised."""
        if self._task is None or (self._task.done() and time.monotonic() >= self._fresh_until):
            self._task = asyncio.create_task(self._run())
        error = await asyncio.shield(self._task)  # other callers await it, too
        if error is not None:
            raise error.with_traceback(None)  # else it grows with each raise

    async def is_well(self, within_s: float) -> bool:
        """Return whether the check passes within the time."""
        try:
            await asyncio.wait_for(self.check(), within_s)
        except (CrossmodalError, TimeoutError):
            return False
        return True

    async def _run(self) -> CrossmodalError | None:
        try:
            await self._check()
        except CrossmodalError as e:
            return e
        finally:
            self._fresh_until = time.monotonic() + FRESH_S
        return None
