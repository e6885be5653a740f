"""Whether Redis and the store take writes: asked by one, however many want to know."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from crossmodal.errors import CrossmodalError

FRESH_S = 1.0  # that an answer counts


class Readiness:
    """Runs `check`, no two at once and none while the answer of the last one counts."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._task: asyncio.Task[CrossmodalError | None] | None = None
        self._fresh_until = 0.0

    async def check(self) -> None:
        """Raises what the check has raised."""
        if self._task is None or (self._task.done() and time.monotonic() >= self._fresh_until):
            self._task = asyncio.create_task(self._run())
        error = await asyncio.shield(self._task)  # others wait for it too
        if error is not None:
            raise error.with_traceback(None)  # else it grows each time that it is raised

    async def is_well(self, within_s: float) -> bool:
        """Whether the check has passed, and in time."""
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
