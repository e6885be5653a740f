"""Models without torch: pictures and captions of one color, made at once.

Words in a prompt decide what happens to its batch: "poison" kills the process, "tarpit" never
returns, "snail" takes three seconds, "painter" too, in steps, "sculptor" a minute in steps,
"glutton" runs out of memory, "breaker" breaks the device. A few words are unknown.
"""

import os
import signal
import threading
import time
import zlib
from collections.abc import Sequence

import numpy as np

from crossmodal.errors import UnknownWords
from crossmodal.jobs.record import GeneratedCaption
from crossmodal.kinds.registry import kind_of
from crossmodal.models.contract import UNWATCHED, Link
from crossmodal.text.sentences import passed_over
from worker.host.pipeline import Described, Drawn, HostRequest, Outcome, Pipeline

SIDE = 16
SNAIL_S = 3.0
STEPS = {"painter": 6, "sculptor": 120}
STEP_S = 0.5
UNKNOWN = {"zorg", "frob", "zanzibar"}


class FakeModel(Pipeline):
    """A pipeline for any kind: equal requests give equal bytes, different ones do not."""

    def weight(self, request: HostRequest) -> int:
        return request.params.count

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        link.step(0, 1)
        for request in batch:
            _suffer(getattr(request.params, "prompt", ""), link)
        return [_made(request) for request in batch]


def _suffer(prompt: str, link: Link) -> None:
    for word in STEPS.keys() & set(prompt.split()):
        for step in range(1, STEPS[word] + 1):
            time.sleep(STEP_S)
            link.step(step, STEPS[word])
    if "poison" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if "tarpit" in prompt:
        threading.Event().wait()
    if "snail" in prompt:
        time.sleep(SNAIL_S)
    if "glutton" in prompt:
        raise MemoryError("there is none for a glutton")
    if "breaker" in prompt:
        raise RuntimeError("CUDA error: device-side assert triggered")


def _made(request: HostRequest) -> Outcome:
    params, level = request.params, ""
    if request.image is not None:
        level = f" of level {int(request.image.mean())}"
    if kind_of(params).output == "captions":
        captions = [
            GeneratedCaption(text=f"a picture{level}", log_probability=-1.0 - i)
            for i in range(params.count)
        ]
        return Described(tuple(captions))
    prompt, seed = getattr(params, "prompt", ""), getattr(params, "seed", 0)
    unknown = tuple(word for word in prompt.split() if word in UNKNOWN)
    if prompt and len(unknown) == len(prompt.split()):
        return UnknownWords(f"no object of the prompt {prompt!r} is known")
    images = np.empty((params.count, SIDE, SIDE, 3), np.uint8)
    for i in range(params.count):
        color = zlib.crc32(f"{seed + i} {prompt}{level}".encode()).to_bytes(4, "big")
        images[i] = list(color[:3])
    return Drawn(images, unknown, {}, tuple(filter(None, [passed_over(unknown, {})])))
