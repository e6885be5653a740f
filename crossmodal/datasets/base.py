"""What every data set yields, whatever it was read from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "seen", "heldout"]


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
    """A stream of examples that is never held in memory as a whole."""

    name: str

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Examples of `split`; the same seed gives the same examples in the same order."""
        ...

    def texts(self, split: Split, seed: int) -> Iterator[str]:
        """Captions alone, without the cost of decoding or rendering pictures."""
        ...
