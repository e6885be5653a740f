"""What every data set yields, whatever it was read from."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import InvalidData

TRAIN = "train"  # the split to train on; a data set says which others it is judged by


@dataclass(frozen=True)
class LookCounts:
    """How many shapes and colors groundings tell apart."""

    shapes: int
    colors: int


@dataclass(frozen=True)
class Grounding:
    """What the K objects of a text are in its picture, in the order the text names them.

    `boxes` is float32 (K, 3): centre x, centre y and radius as fractions of the side. `shapes`
    and `colors`, int64 (K,), are numbers of the data set's own, as is `ground`, the color of
    the background.
    """

    boxes: NDArray[np.float32]
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]
    ground: int


@dataclass(frozen=True)
class Caption:
    """One description of a picture, with what it speaks of where the data set knows that."""

    text: str
    grounding: Grounding | None = None


@dataclass(frozen=True)
class Example:
    """One picture, uint8 RGB (H, W, 3), with its captions; the first one leaves nothing out."""

    image: NDArray[np.uint8]
    captions: tuple[Caption, ...]


class Dataset(Protocol):
    """Endless, shuffled, and addressed by number, so that training can go on where it stopped.

    Pictures are read one at a time, when they are asked for.
    """

    name: str
    judged: tuple[str, ...]  # splits to measure by, never trained on
    looks: LookCounts | None  # where every caption has a grounding, of one object at least
    things: tuple[str, ...]  # words that name objects, where the data set knows them
    problems: tuple[str, ...]  # what was found missing or unreadable when it was opened

    @property
    def digest(self) -> str:
        """Of its content: the same wherever it lies, another once a caption is changed."""
        ...

    def roughened(self) -> Self:
        """The same with pictures that are less clean, where they are rendered."""
        ...

    def example(self, split: str, seed: int, index: int) -> Example:
        """Example number `index` of the stream that `seed` makes of `split`.

        Raises `InvalidData`, naming the picture, when it cannot be read.
        """
        ...

    def size(self, split: str) -> int | None:
        """How many pictures `split` has; None where there is no end of them."""
        ...

    def texts(self, split: str, seed: int) -> Iterator[str]:
        """Captions alone, finitely many, without the cost of reading or rendering pictures."""
        ...


def examples(data: Dataset, split: str, seed: int) -> Iterator[Example]:
    """One pass over `split`, without what cannot be read; endless where the data set is."""
    size = data.size(split)
    for index in count() if size is None else range(size):
        try:
            yield data.example(split, seed, index)
        except InvalidData:
            continue  # the pass that trains counts and names it
