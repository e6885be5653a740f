"""The size that a model needs its input pictures to have."""

from typing import NamedTuple


class Fit(NamedTuple):
    """Squares of this side in pixels, or whole pictures with no longer side."""

    side: int
    is_square: bool = True

    @property
    def max_bytes(self) -> int:
        """The max size of a picture as RGB."""
        return 3 * self.side**2

    def allows(self, height: int, width: int) -> bool:
        """Return whether a picture of that size fits already."""
        if self.is_square:
            return height == width == self.side
        return 1 <= height <= self.side and 1 <= width <= self.side
