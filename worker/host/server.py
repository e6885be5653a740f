"""The model host: the one process of a device that holds torch and the models.

    python -m worker.host --socket PATH --device cpu|cuda

Loads the bundle, warms up, and only then listens, so that whoever can connect is served.
"""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from crossmodal.errors import CrossmodalError, InvalidParams, InvalidSetting
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import parse_params
from crossmodal.jobs.record import Failure, parse_task
from crossmodal.models.bundle import open_bundle
from crossmodal.pipelines.base import Described, Drawn, Request
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.settings import Settings, load_settings
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

    def __init__(self, settings: Settings, device: torch.device) -> None:
        bundle = open_bundle(settings.bundle)
        txt2img = Txt2ImgPipeline(bundle, device)
        img2txt = Img2TxtPipeline(bundle, device)
        for pipeline in (txt2img, img2txt):
            pipeline.warmup()
        self.info = HostInfo(bundle.name, bundle.version, str(device), img2txt.side, os.getpid())
        self.batcher = Batcher({Task.TXT2IMG: txt2img, Task.IMG2TXT: img2txt}, settings.max_batch)

    async def answer(self, message: Message, send: Callable[[Message], None]) -> Message:
        """The reply to one message; whatever is wrong with it becomes an error reply.

        `send` gets the notice that the message's batch goes to the device.
        """
        try:
            if message.get("op") == "info":
                return {"ok": asdict(self.info)}
            task = parse_task(str(message.get("task")))
            params = parse_params(task, message.get("params") or {})
            image = unpack_pixels(message.get("image"))
            ran = await self.batcher.run(
                task, Request(params, image), alone=bool(message.get("alone")),
                on_start=lambda size: send({"running": size}),
            )  # fmt: skip
            return self._reply(ran)
        except CrossmodalError as e:
            return _error(e)
        except (KeyError, TypeError, ValueError) as e:
            return _error(InvalidParams(f"the message cannot be understood: {e}"))

    def _reply(self, ran: Ran) -> Message:
        outcome = ran.outcome
        if isinstance(outcome, CrossmodalError):
            return _error(outcome)
        made: dict[str, Any] = {
            "model": self.info.model,
            "bundle_version": self.info.bundle_version,
            "images": None,
            "captions": [],
            "unknown_words": [],
            "suggestions": {},
            "batch_size": ran.batch_size,
            "batch_wait_s": ran.wait_s,
            "inference_s": ran.inference_s,
        }
        if isinstance(outcome, Drawn):
            made["images"] = pack_pixels(outcome.images)
            made["unknown_words"] = list(outcome.unknown_words)
            made["suggestions"] = outcome.suggestions
        if isinstance(outcome, Described):
            made["captions"] = [caption.model_dump() for caption in outcome.captions]
        return {"ok": made}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its task process goes away, or gives its request up."""

        def send(message: Message) -> None:
            writer.write(pack(message))

        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                if length > MAX_FRAME:
                    log.error("a frame of %d bytes is over the limit of %d", length, MAX_FRAME)
                    break
                message = unpack(await reader.readexactly(length))
                reply = await unless_gone(self.answer(message, send), reader)
                if reply is None:
                    break
                send(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            log.debug("a task process disconnected")
        finally:
            writer.close()


async def unless_gone(
    answering: Coroutine[Any, Any, Message], reader: asyncio.StreamReader
) -> Message | None:
    """The answer; None, and no more work for it, once the other side has closed its end."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(reader.read(1))  # nobody speaks before they are answered
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await answer if answer.done() else None
    finally:
        gone.cancel()
        answer.cancel()
        await asyncio.wait({gone, answer})  # the reader has one reader at a time


def _error(error: CrossmodalError) -> Message:
    return {"error": Failure.of(error).model_dump()}


async def listen(
    path: Path,
    converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.Server:
    """Listen at a unix socket that only this user can open (mode 0600). Raises `InvalidSetting`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o022:
        raise InvalidSetting(f"others may write to {path.parent}: a socket there is not private")
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(converse, path)
    finally:
        os.umask(before)


async def serve(settings: Settings, device: torch.device, path: Path, beat: Path | None) -> None:
    """Load, warm up, listen; returns when told to stop by SIGTERM or SIGINT."""
    host = ModelHost(settings, device)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await listen(path, host.converse)
    tasks = [
        asyncio.create_task(host.batcher.serve()),
        asyncio.create_task(watch(host.batcher, settings.inference_timeout_s, beat)),
    ]
    for task in tasks:  # without batches, or without memory, there is no service
        task.add_done_callback(lambda _: stop.set())
    info = host.info
    log.info("ready on %s with bundle %s %s", info.device, info.model, info.bundle_version)
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()  # raises what ended it
        task.cancel()


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


def open_device(name: str) -> torch.device:
    """A torch device that can be computed on. Raises `InvalidSetting`."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InvalidSetting(f"the device {name!r} cannot be used: {str(e).splitlines()[0]}") from e
    return device


def main() -> None:
    """Run a model host in this process."""
    parser = argparse.ArgumentParser(prog="python -m worker.host", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--beat", type=Path, help="touched every second while all is well")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] host %(levelname)s %(message)s")
    logging.getLogger("gensim").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(load_settings(), open_device(args.device), args.socket, args.beat))
    except CrossmodalError as e:
        log.error("%s: %s", e.code, e)
        raise SystemExit(1) from e
    logging.shutdown()
    os._exit(0)  # a batch that still runs would keep the interpreter from ending
