"""The kind `img2txt`: pictures to captions."""

from pydantic import Field

from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import BlobRef, Metadata


class Img2TxtParams(ItemParams):
    """The `count` likeliest captions of `image`, by a beam search of `beam_width`."""

    image: BlobRef = Field(description="The picture to caption.")
    count: int = Field(default=1, ge=1, le=5, description="How many captions.")
    beam_width: int = Field(default=4, ge=1, le=10, description="Width of the beam search.")
    max_words: int = Field(default=40, ge=1, le=64, description="Max words of a caption.")
    metadata: Metadata = None


IMG2TXT = Kind(
    "img2txt",
    Img2TxtParams,
    "captions",
    "Caption pictures",
    {"image": {"key": "inputs/9f/9f86d0…"}},
)
