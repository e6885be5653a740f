"""HTTP as uvicorn speaks it, where connections that wait for a request give way to others."""

import asyncio
import time

from uvicorn.protocols.http.h11_impl import H11Protocol


class Yielding(H11Protocol):
    """Of connections without a request, or with a half of one's head, the longest idle is closed
    when there are as many as there may be. So nobody is refused for their sake."""

    idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = (one for one in self.connections if one is not self)
            idle = [one for one in others if isinstance(one, Yielding) and one.is_idle]
            if idle:
                longest = min(idle, key=lambda one: one.idle_since)
                self.connections.discard(longest)  # it counts no more from now on
                longest.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether nobody is being answered, nor has been told that this is over."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.transport.is_closing()

    def on_response_complete(self) -> None:
        self.idle_since = time.monotonic()
        super().on_response_complete()
