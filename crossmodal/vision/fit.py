"""How pictures are wanted, for those who do not make them so."""

from typing import NamedTuple


class Fit(NamedTuple):
    """Squares of this side, or whole pictures, no side of which is longer than this."""

    side: int
    is_square: bool = True

    @property
    def max_bytes(self) -> int:
        """Of a picture, as RGB."""
        return 3 * self.side**2

    def allows(self, height: int, width: int) -> bool:
        """Whether a picture of that size is as it is wanted."""
        if self.is_square:
            return height == width == self.side
        return 1 <= height <= self.side and 1 <= width <= self.side
