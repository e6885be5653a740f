"""A worker's connection to its model host: numbered requests, and callers that wait."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields

from crossmodal.errors import InvalidParams, ModelHostCrashed, TimedOut, described
from worker.host.frames import Frames
from worker.host.protocol import HostInfo, Message
from worker.host.watch import Audience, OnStep


@dataclass(eq=False, slots=True)
class _Waiting:
    """A caller that waits for a reply."""

    reply: "asyncio.Future[Message | Exception]"
    on_device: Callable[[int], None]
    on_step: OnStep
    size: int = 0  # requests on the device, its own included; 0 until they are there
    timer: asyncio.TimerHandle | None = None

    def end(self, outcome: Message | Exception) -> None:
        if not self.reply.done():  # it may be canceled
            self.reply.set_result(outcome)


class Link(Frames):
    """One connection, usable from the host's hello until it is lost."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.info: HostInfo | None = None
        self.settled = asyncio.Event()
        """Set on the host's hello, or when the connection is lost before it."""
        self.ended = asyncio.Event()
        self._timeout_s = timeout_s
        self._waiting: dict[int, _Waiting] = {}
        self._asked = 0

    async def ask(
        self,
        request: Message,
        rank: int,
        on_device: Callable[[int], None],
        on_step: OnStep,
        audience: Audience,
    ) -> Message:
        """Send a request and return the host's reply; a canceled one frees its place there.

        The host makes previews for as long as there is an `audience`. Raises `ModelHostCrashed`,
        `TimedOut`, and `InvalidParams` if the request cannot be sent.
        """
        self._asked += 1
        number = request["id"] = self._asked
        try:
            self.send(request, rank)
        except (ValueError, TypeError, OverflowError) as e:
            raise InvalidParams(f"the request cannot be sent to the model host: {e}") from e
        waiting = _Waiting(asyncio.get_running_loop().create_future(), on_device, on_step)
        self._waiting[number] = waiting
        audience.told_to(lambda on: self.send({"op": "watch", "id": number, "on": on}, rank))
        try:
            outcome = await waiting.reply
        finally:
            audience.told_to(None)
            if waiting.timer is not None:
                waiting.timer.cancel()
            if self._waiting.pop(number, None) is not None:  # the host has not replied yet
                self.send({"op": "cancel", "id": number}, rank)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def received(self, message: Message) -> None:
        if self.info is None:
            self.info = _info(message)
            self.settled.set()
            return
        number = message.get("id")
        if type(number) is not int or not 0 < number <= self._asked:
            raise ValueError(f"the host answers request {number!r}, which was never sent")
        waiting = self._waiting.get(number)
        if waiting is None:  # its caller has gone
            return
        if type(size := message.get("on_device")) is int:
            self._goes_to_device(waiting, size)
        elif "step" in message:
            done, of = message["step"]
            self._takes_step(waiting, done, of, message.get("preview"))
        elif "ok" in message or "error" in message:
            del self._waiting[number]
            waiting.end(message)
        else:
            raise ValueError(
                f"the host's message about request {number} is neither a notice nor a reply"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        lost, self._waiting = self._waiting, {}
        for waiting in lost.values():
            waiting.end(_crash(waiting.size, self.fault))
        self.settled.set()
        self.ended.set()

    def _goes_to_device(self, waiting: _Waiting, size: int) -> None:
        waiting.size = size
        self._wait_on(waiting)
        try:
            waiting.on_device(size)
        except Exception as e:  # noqa: BLE001 - raised to its caller alone
            waiting.end(e)

    def _takes_step(self, waiting: _Waiting, done: int, of: int, preview: bytes | None) -> None:
        self._wait_on(waiting)
        try:
            waiting.on_step(done, of, *([preview] if preview else []))
        except Exception as e:  # noqa: BLE001 - as above
            waiting.end(e)

    def _wait_on(self, waiting: _Waiting) -> None:
        """Restart the timeout of a request that the host has reported on."""
        if waiting.timer is not None:
            waiting.timer.cancel()
        loop = asyncio.get_running_loop()
        waiting.timer = loop.call_later(self._timeout_s, self._expire, waiting)

    def _expire(self, waiting: _Waiting) -> None:
        waiting.end(TimedOut(f"the model host sent nothing for {self._timeout_s:g} s"))


def _info(message: Message) -> HostInfo:
    """Parse the host's hello. Raises `ValueError`."""
    try:
        hello = message["hello"]
        known = {field.name for field in fields(HostInfo)}
        return HostInfo(**{name: value for name, value in hello.items() if name in known})
    except (AttributeError, KeyError, TypeError) as e:
        raise ValueError("the host's first message is not a hello") from e


def _crash(size: int, fault: Exception | None) -> ModelHostCrashed:
    when = f"while it ran {_of(size)}" if size else "before it ran the job"
    why = "it closed the connection" if fault is None else described(fault)
    return ModelHostCrashed(f"the model host died {when}: {why}", size)


def _of(size: int) -> str:
    return "the job alone" if size == 1 else f"the job with {size - 1} others or more"
