"""The interface of all data sets, and the examples they yield."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import InvalidData

TRAIN = "train"  # the split to train on; `Dataset.judged` names the splits to evaluate on


@dataclass(frozen=True)
class LookCounts:
    """The number of distinct shapes and colors in groundings."""

    shapes: int
    colors: int


@dataclass(frozen=True)
class Grounding:
    """The K objects of a text in its picture, in the order the text names them.

    `boxes` is float32 (K, 3): center x, center y and radius as fractions of the side. `shapes`
    and `colors`, int64 (K,), are indices defined by the data set, as is `ground`, the color of
    the background.
    """

    boxes: NDArray[np.float32]
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]
    ground: int


@dataclass(frozen=True)
class Caption:
    """One caption of a picture, with its grounding if the data set has groundings."""

    text: str
    grounding: Grounding | None = None


@dataclass(frozen=True)
class Example:
    """One picture, uint8 RGB (H, W, 3), with its captions; if any is complete, the first."""

    image: NDArray[np.uint8]
    captions: tuple[Caption, ...]


class Dataset(Protocol):
    """An endless, shuffled data set; examples have an index, so that training can be resumed.

    Pictures are read lazily, one at a time.
    """

    name: str
    judged: tuple[str, ...]  # splits to evaluate on, never trained on
    looks: LookCounts | None  # None unless every caption has a grounding of an object
    things: tuple[str, ...]  # words that name objects, if known
    problems: tuple[str, ...]  # missing or unreadable items found on opening

    @property
    def digest(self) -> str:
        """The digest of the content, independent of its folder."""
        ...

    def roughened(self) -> Self:
        """Return the data set with less clean pictures if they are rendered, else unchanged."""
        ...

    def example(self, split: str, seed: int, index: int) -> Example:
        """Return example `index` of the endless stream of `split` that `seed` defines.

        Raises `InvalidData`, naming the picture, if it cannot be read.
        """
        ...

    def size(self, split: str) -> int | None:
        """Return the number of pictures of `split`; None if it is endless."""
        ...

    def texts(self, split: str, seed: int) -> Iterator[str]:
        """Yield captions, finitely many, without reading or rendering pictures."""
        ...


def examples(data: Dataset, split: str, seed: int) -> Iterator[Example]:
    """Yield one pass over `split` without unreadable pictures; endless if the data set is."""
    size = data.size(split)
    for index in count() if size is None else range(size):
        try:
            yield data.example(split, seed, index)
        except InvalidData:
            continue  # training counts and names them
