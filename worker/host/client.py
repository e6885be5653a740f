"""The worker's client of the model host: one connection for all that it runs."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crossmodal import tracing
from crossmodal.errors import (
    CrossmodalError,
    JobFailed,
    ModelHostError,
    ModelHostUnavailable,
    described,
)
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.registry import kind_of
from crossmodal.kinds.task import Task
from worker.host.link import Link
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer, HostInfo, Message, pack_pixels, unpack_pixels
from worker.host.watch import Audience, OnStep, no_step

POLL_S = 0.1  # between two tries to connect: a unix socket cannot be awaited
MARGIN_S = 5.0  # past the timeout after which a host that hangs ends itself


class HostClient:
    """A connection to the model host, opened on first use, and again after a restart.

    Used from one event loop, by any number of callers at once.
    """

    def __init__(self, path: Path, wait_s: float, timeout_s: float) -> None:
        self.path = path
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._refused: Exception | None = None

    async def info(self) -> HostInfo:
        """Return what the host serves. Raises `ModelHostUnavailable`."""
        info = (await self._connected()).info
        assert info is not None  # noqa: S101 - for mypy: it is connected
        return info

    async def run(
        self,
        task: Task,
        requests: Sequence[HostRequest],
        *,
        alone: bool = False,
        bulk: bool = False,
        on_device: Callable[[int], None] = lambda size: None,
        on_step: OnStep = no_step,
        audience: Audience | None = None,
    ) -> list[Answer | CrossmodalError]:
        """Run requests on the host, `alone` on the device or batched with others.

        Returns what the models made of each request, or its error. `on_device` is called, perhaps
        more than once, when some of them go to the device, with the number of requests there, and
        `on_step` now and then with the steps done, and their total; while there is an `audience`,
        some steps come with a preview. A canceled call frees its place. Raises
        `ModelHostUnavailable` if there is no host, `ModelHostCrashed` if it died before it
        answered, and `TimedOut`.
        """
        link = await self._connected()
        trace = tracing.current()
        request: Message = {
            "op": "run",
            "task": task,
            "alone": alone,
            "bulk": bulk,
            "requests": [
                {"params": _plain(params), "image": pack_pixels(image)}
                for params, image in requests
            ],
            **({"trace": trace} if trace else {}),
        }
        reply = await link.ask(request, int(bulk), on_device, on_step, audience or Audience())
        return answers_of(reply, len(requests))

    async def close(self) -> None:
        """Close the connection; what still runs over it is lost."""
        if self._link is not None:
            self._link.abort(ConnectionAbortedError("the worker closed the connection"))
            await self._link.ended.wait()
            self._link = None

    async def _connected(self) -> Link:
        """Return the connection; concurrent callers share one attempt to open it."""
        if self._link is not None and not self._link.is_lost:
            return self._link
        try:
            async with asyncio.timeout(max(self._wait_s, POLL_S)), self._opening:
                while self._link is None or self._link.is_lost:
                    await self._try()
                return self._link
        except TimeoutError as e:
            raise ModelHostUnavailable(
                f"no model host answers at {self.path} ({described(self._refused or e)}). "
                "`crossmodal worker` starts one; alone: "
                f"python -P -m worker.host --socket {self.path}"
            ) from e

    async def _try(self) -> None:
        """Connect; wait a little if no host listens, as one may be starting."""
        try:
            self._link = await self._open()
        except (OSError, ValueError) as e:
            self._refused = e
            await asyncio.sleep(POLL_S)

    async def _open(self) -> Link:
        """Open a connection and wait for the host's hello."""
        timeout_s = self._timeout_s + MARGIN_S
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: Link(timeout_s), str(self.path))
        self._refused = None
        try:
            await link.settled.wait()
        finally:
            if link.info is None:
                link.abort(link.fault)
        if link.info is None:
            raise link.fault or ConnectionResetError("it closed the connection")
        return link


def _plain(params: ItemParams) -> dict[str, Any]:
    """Return the params as plain fields; of a picture only what the host's checks need."""
    fields = dict(params)
    kind = kind_of(params)
    if kind.picture is not None:
        fields = fields | {kind.picture: {"key": fields[kind.picture].key}}
    return fields if params.metadata is None else fields | {"metadata": None}


def answers_of(reply: Message, count: int) -> list[Answer | CrossmodalError]:
    """Return the reply to each of `count` requests. Raises an error that is for all of them."""
    try:
        if "error" in reply:
            raise _error(reply["error"])
        made = reply["ok"]
        if len(made["answers"]) != count:
            raise ValueError(f"{len(made['answers'])} answers to {count} requests")
        maker = made["model"], made["bundle_version"], made.get("repeatable")
        return [_answer(one, *maker) for one in made["answers"]]
    except (KeyError, TypeError, ValueError) as e:
        raise ModelHostError(f"the model host's reply cannot be understood: {e!r}") from e


def _answer(
    made: Message, model: str, bundle_version: str, repeatable: Any
) -> Answer | CrossmodalError:
    if "error" in made:
        return _error(made["error"])
    return Answer(
        model,
        bundle_version,
        repeatable,
        unpack_pixels(made.get("images")),
        made.get("captions", []),
        made.get("unknown_words", []),
        made.get("suggestions", {}),
        made.get("warnings", []),
        *made["batch"],
    )


def _error(failure: Message) -> CrossmodalError:
    return JobFailed(failure["message"], failure["code"], failure["retryable"])
