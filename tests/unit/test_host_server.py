"""What the model host replies to messages that nobody should send, and when it is at fault."""

import asyncio
from typing import Any

from crossmodal.jobs.names import Task
from crossmodal.pipelines.base import Request
from tests.at_once import at_once
from tests.unit.test_batcher import Recorder, batcher_of
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost

REQUEST = {"params": {"prompt": "a circle", "count": 1, "seed": 1}, "image": None}
RUN = {"op": "run", "task": "txt2img", "requests": [REQUEST]}


class Unweighable(Recorder):
    def weight(self, request: Request) -> int:
        raise TypeError("an error of ours")


def reply(message: dict[str, Any], pipeline: Recorder) -> dict[str, Any]:
    info = HostInfo("model", "1", "cpu", 64, 0)
    host = ModelHost(info, batcher_of(pipeline, 4))
    return asyncio.run(host.answer(message, lambda _: None))


def test_a_message_is_answered() -> None:
    assert len(reply(RUN, Recorder())["ok"]["answers"]) == 1


@at_once(
    "message",
    [
        {},
        {"op": "run", "task": Task.TXT2IMG},
        RUN | {"task": "txt2song"},
        RUN | {"requests": 1},
        RUN | {"requests": [1]},
        RUN | {"requests": [REQUEST | {"params": None}]},
        RUN | {"requests": [REQUEST | {"image": "none"}]},
        RUN | {"requests": [REQUEST | {"image": {"shape": [1 << 40], "data": b""}}]},
    ],
)
def test_a_message_that_makes_no_sense_is_its_senders_fault(message: dict[str, Any]) -> None:
    assert reply(message, Recorder())["error"]["code"] in ("invalid_params", "unknown_task")


def test_an_error_of_the_host_is_told_as_such() -> None:
    error = reply(RUN, Unweighable())["error"]
    assert (error["code"], error["retryable"]) == ("model_host_error", True)
