"""What every data set yields, whatever it was read from."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import DataInvalid

TRAIN = "train"  # the split to train on; a data set says which others it is judged by


@dataclass(frozen=True)
class Caption:
    """One description of a picture.

    `boxes`, where the data set knows them, is float32 (K, 3): centre x, centre y and
    radius of the objects as fractions of the side, in the order the text names them.
    """

    text: str
    boxes: NDArray[np.float32] | None = None


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
    grounded: bool  # whether captions come with boxes
    problems: tuple[str, ...]  # what was found missing or unreadable when it was opened

    @property
    def digest(self) -> str:
        """Of its content: the same wherever it lies, another once a caption is changed."""
        ...

    def example(self, split: str, seed: int, index: int) -> Example:
        """Example number `index` of the stream that `seed` makes of `split`.

        Raises `DataInvalid`, naming the picture, when it cannot be read.
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
        except DataInvalid:
            continue  # the pass that trains counts and names it
