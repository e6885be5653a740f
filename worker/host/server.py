"""The model host's server, at a socket that only its user can open. Knows no model, no torch."""

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
from crossmodal.jobs.record import Failure, ModelInfo
from crossmodal.kinds.base import Kind
from crossmodal.kinds.task import Task, parse_task
from worker import beat as heartbeat
from worker.host.batcher import Batcher
from worker.host.frames import Frames
from worker.host.line import Ran
from worker.host.pipeline import Drawn, HostRequest, Pipeline
from worker.host.protocol import HostInfo, Message, pack_pixels, unpack_pixels
from worker.host.watch import Audience, OnStep
from worker.serving import info_file

log = logging.getLogger("worker.host")

BEAT_S = 1.0


class ModelHost:
    """Loaded pipelines behind a batcher; answers the messages of `protocol`."""

    def __init__(self, info: HostInfo, batcher: Batcher, told: ModelInfo | None = None) -> None:
        self.info = info
        self.batcher = batcher
        self.told = told or ModelInfo(
            name=info.model, version=info.bundle_version, format="", kinds={}
        )
        """What is published of its model."""

    async def answer(
        self,
        message: Message,
        on_device: Callable[[int], None],
        on_step: OnStep,
        audience: Audience | None = None,
    ) -> Message:
        """Return the reply to one request; any error becomes an error reply.

        `on_device` is called with the number of requests on the device, when some of these go
        there, and `on_step` with the progress of their batch, with previews while there is an
        `audience`.
        """
        try:
            task, asked = self._understood(message)
            ran = iter(
                await self.batcher.run(
                    task,
                    [request for request in asked if isinstance(request, HostRequest)],
                    alone=bool(message.get("alone")),
                    bulk=bool(message.get("bulk")),
                    trace=str(message.get("trace", "")),
                    on_start=on_device,
                    on_step=on_step,
                    audience=audience,
                )
            )
            answers = [
                _error(one) if isinstance(one, CrossmodalError) else _answer(next(ran))
                for one in asked
            ]
            return {
                "ok": {
                    "model": self.info.model,
                    "bundle_version": self.info.bundle_version,
                    "repeatable": self.batcher.pipeline(task).repeatable,
                    "answers": answers,
                }
            }
        except CrossmodalError as e:
            return _error(e)
        except Exception as e:  # a bug: the caller must still get a reply
            log.exception("internal error")
            return _error(ModelHostError(f"{type(e).__name__}: {e}"))

    def _understood(self, message: Message) -> tuple[Task, list[HostRequest | InvalidParams]]:
        """Return the task, and each request or what is wrong with its params.

        Raises `InvalidParams`.
        """
        task = parse_task(str(message.get("task"))).of_items
        pipeline = self.batcher.pipeline(task)
        try:
            return task, [_request(pipeline, task.kind, one) for one in message["requests"]]
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise InvalidParams(f"the message cannot be understood: {e}") from e


def _request(pipeline: Pipeline, kind: Kind, packed: Message) -> HostRequest | InvalidParams:
    image = unpack_pixels(packed.get("image"))
    try:
        return HostRequest(pipeline.params(kind, packed["params"]), image)
    except InvalidParams as e:
        return e


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
    if outcome.warnings:
        made["warnings"] = list(outcome.warnings)
    return made


class Conversation(Frames):
    """A worker's connection: its requests run until it cancels them, or disconnects."""

    def __init__(self, host: ModelHost) -> None:
        super().__init__()
        self._host = host
        self.running: dict[int, asyncio.Task[None]] = {}
        self._audiences: dict[int, Audience] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send({"hello": asdict(self._host.info)})

    def received(self, message: Message) -> None:
        number = message.get("id")
        if type(number) is not int:
            raise ValueError(f"the id of a request is {number!r}, not an integer")
        if message.get("op") == "cancel":
            if number in self.running:  # else its reply has been sent
                self.running.pop(number).cancel()
        elif message.get("op") == "watch":
            if number in self._audiences:
                self._audiences[number].turn(bool(message.get("on")))
        elif number in self.running:
            raise ValueError(f"two requests have the id {number}")
        else:
            self.running[number] = asyncio.create_task(self._answer(number, message))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        log.debug("a worker disconnected")
        for task in self.running.values():  # its caller has gone
            task.cancel()

    async def _answer(self, number: int, message: Message) -> None:
        rank = int(bool(message.get("bulk")))

        def on_step(done: int, of: int, preview: bytes | None = None, /) -> None:
            shown = {"preview": preview} if preview else {}
            self.send({"id": number, "step": [done, of]} | shown, rank)

        audience = self._audiences[number] = Audience()
        try:
            reply = await self._host.answer(
                message,
                lambda size: self.send({"id": number, "on_device": size}, rank),
                on_step,
                audience,
            )
        finally:
            del self._audiences[number]
        del self.running[number]
        try:
            self.send({"id": number} | reply, rank)
        except ValueError as e:
            error = ModelHostError(f"the result cannot be sent: {e}")
            self.send({"id": number} | _error(error), rank)


def _error(error: CrossmodalError) -> Message:
    return {"error": Failure.of(error).model_dump()}


async def listen(path: Path, converse: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """Listen at a unix socket that only this user can open (mode 0600). Raises `InvalidSetting`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o022:
        raise InvalidSetting(
            f"others may write to {path.parent}: put the socket in a folder of your own"
        )
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.get_running_loop().create_unix_server(converse, path)
    finally:
        os.umask(before)


async def serve(host: ModelHost, path: Path, limit_s: float, beat: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    The process ends if a batch takes no step for `limit_s`.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await listen(path, lambda: Conversation(host))
    watching = asyncio.create_task(watch(host.batcher, limit_s, beat))
    watching.add_done_callback(lambda _: stop.set())  # it ends when the device has no memory left
    info = host.info
    said = host.told.model_dump(mode="json") | {"device": info.device}
    write_whole(info_file(path), json.dumps(said))
    log.info("ready on %s with bundle %s %s", info.device, info.model, info.bundle_version)
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)
    if watching.done():
        watching.result()  # raises what ended it
    watching.cancel()


async def watch(batcher: Batcher, limit_s: float, beat: Path | None) -> None:
    """Touch the heartbeat; return when memory has run out, end the process when the device hangs.

    Nothing can interrupt a device that hangs: the process must end at once.
    """
    while not batcher.is_worn_out:
        if batcher.silent_s > limit_s:
            log.critical(
                "a batch has taken no step for %.0f s, %g are allowed: the device hangs, "
                "this host ends",
                batcher.silent_s,
                limit_s,
            )
            os._exit(os.EX_TEMPFAIL)
        if beat is not None:
            heartbeat.touch(beat)
        await asyncio.sleep(BEAT_S)
    log.error("the device has no memory even for single requests: this host ends")
