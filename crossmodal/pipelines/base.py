"""Params in, results out, always a batch: the same length, the same order, a failure an item."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.record import GeneratedCaption
from crossmodal.kinds.base import ItemParams


class Request(NamedTuple):
    """One item of a batch; `image` is uint8 RGB (side, side, 3) for img2txt, None for txt2img."""

    params: ItemParams
    image: NDArray[np.uint8] | None = None


class Drawn(NamedTuple):
    """Pictures uint8 RGB (count, H, W, 3), and the words of the prompt that were not known.

    `suggestions` gives, for some of them, a known word of nearly the same spelling.
    """

    images: NDArray[np.uint8]
    unknown_words: tuple[str, ...]
    suggestions: dict[str, str]


class Described(NamedTuple):
    """Captions, the likeliest first."""

    captions: tuple[GeneratedCaption, ...]


Outcome = Drawn | Described | CrossmodalError
Pause = Callable[[], None]


def no_pause() -> None:
    """Of a batch that gives way to nobody."""


class Pipeline(Protocol):
    """A loaded model that turns requests into outcomes. Several threads may run it at once."""

    def warmup(self) -> None:
        """Run once, so that the first request does not pay for it."""
        ...

    def weight(self, request: Request) -> int:
        """How many pictures or captions the request asks for."""
        ...

    def run(self, batch: Sequence[Request], pause: Pause = no_pause) -> list[Outcome]:
        """One outcome a request, in their order; calls `pause` wherever it can be held up."""
        ...
