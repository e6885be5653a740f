"""The task's end of the model host's socket."""

import socket
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import (
    CrossmodalError,
    JobFailed,
    ModelHostCrashed,
    ModelHostUnavailable,
    TimedOut,
)
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import Params
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


class HostClient:
    """One connection, kept open between jobs and opened anew when the host was restarted."""

    def __init__(self, path: Path, wait_s: float, timeout_s: float) -> None:
        self.path = path
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._info: HostInfo | None = None

    def info(self) -> HostInfo:
        """Who answers; asked once a connection, so a restarted host is asked again."""
        self._connect()
        if self._info is None:
            reply = self._exchange({"op": "info"})
            self._info = HostInfo(**{f.name: reply[f.name] for f in fields(HostInfo)})
        return self._info

    def run(self, task: Task, params: Params, image: NDArray[np.uint8] | None) -> Answer:
        """Have the models do one job's part.

        Raises `ModelHostUnavailable`, `ModelHostCrashed`, `TimedOut`, or what the
        models made of this request, with its own code.
        """
        self._connect()
        reply = self._exchange({
            "op": "run",
            "task": task,
            "params": params.model_dump(mode="json", exclude={"metadata"}),
            "image": pack_pixels(image),
        })  # fmt: skip
        images = unpack_pixels(reply.pop("images"))
        return Answer(images=images, **reply)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._info = None

    def _connect(self) -> None:
        if self._socket is not None and not _is_closed(self._socket, self._timeout_s):
            return
        self.close()
        deadline = time.monotonic() + self._wait_s
        while self._socket is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.path))
                connection.settimeout(self._timeout_s)
                self._socket = connection
            except OSError as e:
                connection.close()
                if time.monotonic() >= deadline:
                    raise ModelHostUnavailable(
                        f"no model host answers at {self.path} ({e}). `crossmodal worker` "
                        f"starts one; alone: python -m worker.host --socket {self.path}"
                    ) from e
                time.sleep(POLL_S)  # a unix socket cannot be waited for, only tried

    def _exchange(self, message: Message) -> dict[str, Any]:
        assert self._socket is not None  # noqa: S101 - for mypy: every caller has connected
        try:
            self._socket.sendall(pack(message))
            (length,) = LENGTH.unpack(_read(self._socket, LENGTH.size))
            reply = unpack(_read(self._socket, length))
        except TimeoutError as e:
            self.close()  # the late reply must not answer the next request
            raise TimedOut(f"the model host did not answer within {self._timeout_s:g} s") from e
        except (OSError, EOFError, ValueError) as e:
            self.close()
            raise ModelHostCrashed(f"the model host went away during the job: {e}") from e
        except BaseException:  # such as the pool's time limit
            self.close()
            raise
        if "error" in reply:
            raise _error(reply["error"])
        return dict(reply["ok"])


def _is_closed(connection: socket.socket, timeout_s: float) -> bool:
    """Whether the connection is of no more use: there is something to read between replies.

    It is the end of the file, when the host went away, or a reply that nobody waits for.
    """
    try:
        connection.setblocking(False)
        connection.recv(1, socket.MSG_PEEK)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout_s)


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError("it closed the connection")
        data += chunk
    return bytes(data)


def _error(failure: Message) -> CrossmodalError:
    return JobFailed(failure["message"], failure["code"], failure["retryable"])
