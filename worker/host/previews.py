"""Previews of pictures while they are drawn: small JPEG files, made where the model runs."""

from collections.abc import Collection, Sequence
from typing import Any

from PIL import Image

from crossmodal.models.contract import Link, Preview
from crossmodal.vision.encode import encode
from worker.host.pixels import pixels_of

SIDE = 256  # max pixels in either direction
QUALITY = 60


def jpegs_of(pictures: Sequence[Any], places: Collection[int]) -> dict[int, bytes]:
    """Return the pictures at these places as JPEG files; skip those that are None."""
    found = {at: one for at, one in enumerate(pictures) if at in places and one is not None}
    return {at: jpeg_of(one) for at, one in found.items()}


def jpeg_of(picture: Any) -> bytes:
    """Return a picture as a JPEG file of at most `SIDE`. Raises `TypeError` or `ValueError`."""
    pixels = pixels_of(picture)
    if max(pixels.shape[:2]) > SIDE:
        small = Image.fromarray(pixels)
        small.thumbnail((SIDE, SIDE))
        pixels = pixels_of(small)
    return encode(pixels, None, "jpeg", QUALITY)


class PlacedLink:
    """The steps of a part of a batch: its picture i is of the request at `places[i]`.

    The first of several pictures of one request is shown.
    """

    def __init__(self, link: Link, places: Sequence[int]) -> None:
        self._link, self._places = link, places

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        if preview is None:
            self._link.step(done, of)
        else:
            self._link.step(done, of, lambda: self._placed(preview()))

    def _placed(self, pictures: Sequence[Any]) -> list[Any]:
        placed = [None] * (max(self._places) + 1)
        for at, picture in zip(reversed(self._places), reversed(pictures), strict=True):
            placed[at] = picture
        return placed
