"""The task's end of the model host's socket."""

import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal import tracing
from crossmodal.errors import (
    CrossmodalError,
    JobFailed,
    ModelHostCrashed,
    ModelHostUnavailable,
    TimedOut,
    described,
)
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import Img2TxtParams, ItemParams
from worker.host.protocol import (
    LENGTH,
    Answer,
    HostInfo,
    Message,
    pack,
    pack_pixels,
    unpack,
    unpack_pixels,
)

POLL_S = 0.1
LOOK_S = 0.5  # how often a waiting task looks whether its job is still wanted
RECEIVE = 1 << 18  # bytes, at most
QUIET = 40  # bytes, fewer than any reply has: a notice alone, of 15, is read when there is time
MARGIN_S = 5.0  # a host that hangs ends itself; only one that cannot is given up here


HostRequest = tuple[ItemParams, NDArray[np.uint8] | None]
"""Params, and of img2txt the picture, uint8 RGB (side, side, 3)."""


class NoLongerWanted(Exception):
    """The job was canceled, or is run by another, while its request waited or ran."""


class HostClient:
    """One connection, kept open between jobs and opened anew when the host was restarted."""

    def __init__(self, path: Path, wait_s: float, timeout_s: float) -> None:
        self.path = path
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._info: HostInfo | None = None
        self.is_awaited = False
        """Whether there is no host to talk to, so that a task can only wait for one."""

    def info(self, is_wanted: Callable[[], bool] = lambda: True) -> HostInfo:
        """Who answers; asked once a connection, so a restarted host is asked again."""
        self._connect(is_wanted)
        if self._info is None:
            reply = self._exchange({"op": "info"}, is_wanted)
            self._info = HostInfo(**{f.name: reply[f.name] for f in fields(HostInfo)})
        return self._info

    def run(
        self,
        task: Task,
        requests: Sequence[HostRequest],
        *,
        alone: bool = False,
        bulk: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> list[Answer | CrossmodalError]:
        """Have the models do some jobs' part, `alone` on the device or with others.

        What the models made of each request, or its error. Raises `ModelHostUnavailable` when
        there is no host, `ModelHostCrashed` when one died before it answered, `TimedOut`, and
        `NoLongerWanted` within half a second after `is_wanted` says so.
        """
        self._connect(is_wanted)
        trace = tracing.current()
        reply = self._exchange({
            "op": "run", "task": task, "alone": alone, "bulk": bulk,
            "requests": [
                {"params": _plain(params), "image": pack_pixels(image)}
                for params, image in requests
            ],
            **({"trace": trace} if trace else {}),
        }, is_wanted)  # fmt: skip
        made_by = reply["model"], reply["bundle_version"]
        return [_answer(made, *made_by) for made in reply["answers"]]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._info = None

    def _connect(self, is_wanted: Callable[[], bool]) -> None:
        self.is_awaited = False
        if self._socket is not None and not _is_closed(self._socket):
            return
        self.close()
        self.is_awaited = True
        deadline = time.monotonic() + self._wait_s
        look_at = time.monotonic() + LOOK_S
        while self._socket is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.path))
                self._socket = _prepared(connection, self._timeout_s)
                self.is_awaited = False
            except OSError as e:
                connection.close()
                if time.monotonic() >= deadline:
                    raise ModelHostUnavailable(
                        f"no model host answers at {self.path} ({described(e)}). `crossmodal "
                        f"worker` starts one; alone: python -P -m worker.host --socket {self.path}"
                    ) from e
                if time.monotonic() >= look_at:
                    if not is_wanted():
                        raise NoLongerWanted from e
                    look_at = time.monotonic() + LOOK_S
                time.sleep(POLL_S)  # a unix socket cannot be waited for, only tried

    def _exchange(
        self, message: Message, is_wanted: Callable[[], bool] = lambda: True
    ) -> dict[str, Any]:
        assert self._socket is not None  # noqa: S101 - for mypy: every caller has connected
        conversation = _Conversation(self._socket, self._timeout_s + MARGIN_S, is_wanted)
        try:
            reply = conversation.hold(message)
            if conversation.has_more:
                self.close()
        except BaseException:  # also the pool's time limit: a late reply must answer nobody else
            self.close()
            raise
        if "error" in reply:
            raise _error(reply["error"])
        return dict(reply["ok"])


class _Conversation:
    """One request and what the host says to it: perhaps a notice, then the reply."""

    def __init__(
        self, connection: socket.socket, timeout_s: float, is_wanted: Callable[[], bool]
    ) -> None:
        self._socket = connection
        self._timeout_s = timeout_s
        self._is_wanted = is_wanted
        self._received = bytearray()
        self._on_device = 0  # requests, its own with them; 0 until it is there
        self._deadline = float("inf")  # other batches go first, and have limits of their own

    @property
    def has_more(self) -> bool:
        """Whether the host has said more than it was asked: who knows what comes next."""
        return bool(self._received)

    def hold(self, message: Message) -> Message:
        if message["op"] == "info":
            self._deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.sendall(pack(message))
            while "running" in (reply := self._receive()):
                self._on_device = reply["running"]
                self._deadline = time.monotonic() + self._timeout_s
            return reply
        except (OSError, EOFError, ValueError) as e:
            size = self._on_device
            when = f"while it ran {_of(size)}" if size else "before it ran the job"
            raise ModelHostCrashed(f"the model host died {when}: {e}", size) from e

    def _receive(self) -> Message:
        self._wait_for(LENGTH.size)
        (length,) = LENGTH.unpack_from(self._received)
        end = LENGTH.size + length
        if len(self._received) < end:  # then also its last bytes, however few, are waited for
            _wake_at(self._socket, 1)
            self._wait_for(end)
            _wake_at(self._socket, QUIET)
        body = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return unpack(body)

    def _wait_for(self, size: int) -> None:
        while len(self._received) < size:
            begun = time.monotonic()
            try:
                chunk = self._socket.recv(RECEIVE)  # perhaps of several frames
                if not chunk:
                    raise EOFError("it closed the connection")
                self._received += chunk
            except BlockingIOError:  # it has said nothing for LOOK_S
                pass
            if time.monotonic() - begun > LOOK_S / 2:
                self._look()

    def _look(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimedOut(f"the model host did not answer within {self._timeout_s:g} s")
        if not self._is_wanted():
            raise NoLongerWanted


def _of(size: int) -> str:
    return "the job alone" if size == 1 else f"the job with {size - 1} others or more"


def _prepared(connection: socket.socket, timeout_s: float) -> socket.socket:
    """Have the kernel do the waiting: it is asked once a reply, and not before each call."""
    for option, seconds in ((socket.SO_RCVTIMEO, LOOK_S), (socket.SO_SNDTIMEO, timeout_s)):
        whole = int(seconds)
        timeval = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, option, timeval)
    _wake_at(connection, QUIET)
    return connection


def _wake_at(connection: socket.socket, size: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the connection is of no more use: there is something to read between replies.

    It is the end of the file, when the host went away, or a reply that nobody waits for.
    """
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def _plain(params: ItemParams) -> dict[str, Any]:
    """The params that models look at; of a picture only what the host's checks ask for."""
    fields = vars(params)
    if isinstance(params, Img2TxtParams):
        fields = fields | {"image": {"key": params.image.key}}
    return fields if params.metadata is None else fields | {"metadata": None}


def _answer(made: Message, model: str, bundle_version: str) -> Answer | CrossmodalError:
    if "error" in made:
        return _error(made["error"])
    return Answer(
        model, bundle_version, unpack_pixels(made.get("images")), made.get("captions", []),
        made.get("unknown_words", []), made.get("suggestions", {}), *made["batch"],
    )  # fmt: skip


def _error(failure: Message) -> CrossmodalError:
    return JobFailed(failure["message"], failure["code"], failure["retryable"])
