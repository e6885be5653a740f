"""A kind that another package brings, complete."""

from pydantic import Field

from crossmodal.kinds.base import Kind
from crossmodal.kinds.fields import BlobRef, Metadata, Prompt, Seed
from crossmodal.kinds.images import ImageParams


class Img2ImgParams(ImageParams):
    """`count` pictures of `prompt` that begin with `image`, and leave it by `strength`."""

    prompt: Prompt = Field(description="What to draw.")
    image: BlobRef = Field(description="What to begin with.")
    count: int = Field(default=1, ge=1, le=4, description="How many pictures.")
    seed: Seed | None = Field(default=None, description="The first picture's seed.")
    strength: float = Field(default=0.5, ge=0, le=1, description="1 keeps nothing.")
    metadata: Metadata = None


IMG2IMG = Kind(
    "img2img",
    Img2ImgParams,
    "images",
    "Draw pictures that begin with another",
    {"prompt": "a large red circle", "image": {"key": "inputs/9f/9f86d0…"}, "strength": 0.7},
)
