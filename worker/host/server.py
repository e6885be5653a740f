"""What a model host answers, at a socket that only its user can open. Knows no model, no torch."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossmodal.errors import CrossmodalError, InvalidParams, InvalidSetting, ModelHostError
from crossmodal.files import write_whole
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import parse_items
from crossmodal.jobs.record import Failure, parse_task
from crossmodal.pipelines.base import Drawn, Request
from worker.devices import info_file
from worker.host.batcher import Batcher, Ran
from worker.host.protocol import (
    LENGTH,
    MAX_FRAME,
    HostInfo,
    Message,
    pack,
    pack_pixels,
    unpack,
    unpack_pixels,
)

log = logging.getLogger("worker.host")

BEAT_S = 1.0


class ModelHost:
    """Loaded pipelines behind a batcher, answering the messages of `protocol`."""

    def __init__(self, info: HostInfo, batcher: Batcher) -> None:
        self.info = info
        self.batcher = batcher

    async def answer(self, message: Message, send: Callable[[Message], None]) -> Message:
        """The reply to one message; whatever is wrong with it becomes an error reply.

        `send` gets the notices that the message's requests go to the device.
        """
        try:
            if message.get("op") == "info":
                return {"ok": asdict(self.info)}
            task, requests = _understood(message)
            ran = await self.batcher.run(
                task, requests,
                alone=bool(message.get("alone")), bulk=bool(message.get("bulk")),
                trace=str(message.get("trace", "")),
                on_start=lambda size: send({"running": size}),
            )  # fmt: skip
            return {"ok": {
                "model": self.info.model, "bundle_version": self.info.bundle_version,
                "answers": [_answer(one) for one in ran],
            }}  # fmt: skip
        except CrossmodalError as e:
            return _error(e)
        except Exception as e:  # a mistake of ours: whoever waits must still be told
            log.exception("an error of ours")
            return _error(ModelHostError(f"{type(e).__name__}: {e}"))


def _answer(ran: Ran) -> Message:
    outcome = ran.outcome
    if isinstance(outcome, CrossmodalError):
        return _error(outcome)
    made: dict[str, Any] = {"batch": ran[1:]}
    if not isinstance(outcome, Drawn):
        return made | {"captions": [caption.model_dump() for caption in outcome.captions]}
    made["images"] = pack_pixels(outcome.images)
    if outcome.unknown_words:
        made["unknown_words"] = list(outcome.unknown_words)
        made["suggestions"] = outcome.suggestions
    return made


def _understood(message: Message) -> tuple[Task, list[Request]]:
    """What is to be run. Raises `InvalidParams`."""
    task = parse_task(str(message.get("task")))
    try:
        packed = message["requests"]
        params = parse_items(task, [one["params"] for one in packed])
        images = [unpack_pixels(one.get("image")) for one in packed]
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InvalidParams(f"the message cannot be understood: {e}") from e
    return task, [Request(*both) for both in zip(params, images, strict=True)]


class Conversation(asyncio.Protocol):
    """One connection, until its task process goes away, or gives its request up."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._received = bytearray()
        self._answering: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: it is a stream
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._received)
            if length > MAX_FRAME:
                log.error("a frame of %d bytes is over the limit of %d", length, MAX_FRAME)
                self._transport.abort()
                return
            end = LENGTH.size + length
            if len(self._received) < end:
                return
            body = bytes(self._received[LENGTH.size : end])
            del self._received[:end]
            task = asyncio.create_task(self._answer(body))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        log.debug("a task process disconnected")
        for task in self._answering:  # nobody waits for it any more
            task.cancel()

    async def _answer(self, body: bytes) -> None:
        try:
            message = unpack(body)
        except ValueError as e:
            log.error("a frame is no message: %s", e)
            self._transport.abort()
            return
        self._send(await self._host.answer(message, self._send))

    def _send(self, message: Message) -> None:
        self._transport.write(pack(message))


def _error(error: CrossmodalError) -> Message:
    return {"error": Failure.of(error).model_dump()}


async def listen(path: Path, converse: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Listen at a unix socket that only this user can open (mode 0600). Raises `InvalidSetting`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o022:
        raise InvalidSetting(f"others may write to {path.parent}: a socket there is not private")
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.get_running_loop().create_unix_server(converse, path)
    finally:
        os.umask(before)


async def serve(host: ModelHost, path: Path, limit_s: float, beat: Path | None = None) -> None:
    """Listen; returns when told to stop by SIGTERM or SIGINT. No batch may run for `limit_s`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await listen(path, lambda: Conversation(host))
    watching = asyncio.create_task(watch(host.batcher, limit_s, beat))
    watching.add_done_callback(lambda _: stop.set())  # without memory there is no service
    info = host.info
    said = {"device": info.device, "model": info.model, "bundle_version": info.bundle_version}
    write_whole(info_file(path), json.dumps(said))
    log.info("ready on %s with bundle %s %s", info.device, info.model, info.bundle_version)
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)
    if watching.done():
        watching.result()  # raises what ended it
    watching.cancel()


async def watch(batcher: Batcher, limit_s: float, beat: Path | None) -> None:
    """Show that this process lives; end it when its device hangs, or has no memory any more.

    A device that hangs can be interrupted by nothing: the process must go, at once.
    """
    while not batcher.is_worn_out:
        if batcher.running_s > limit_s:
            log.critical("a batch has run for %.0f s, %g are allowed: the device hangs, this "
                         "host ends", batcher.running_s, limit_s)  # fmt: skip
            os._exit(os.EX_TEMPFAIL)
        if beat is not None:
            beat.touch()
        await asyncio.sleep(BEAT_S)
    log.error("the device has no memory even for single requests: this host ends")
