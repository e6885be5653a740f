"""The kind `txt2img`: prompts to pictures."""

from pydantic import Field

from crossmodal.kinds.base import Kind
from crossmodal.kinds.fields import Metadata, Prompt, Seed
from crossmodal.kinds.images import ImageParams


class Txt2ImgParams(ImageParams):
    """`count` pictures of `prompt`; picture i is drawn with `seed` + i.

    `temperature` is the spread of the latent: 0 gives the likeliest picture, 1 the spread
    of the training data. The client chooses an absent `seed` at submission, so that a job that
    runs again makes the same pictures.
    """

    prompt: Prompt = Field(description="What to draw.")
    count: int = Field(default=1, ge=1, le=16, description="How many pictures.")
    seed: Seed | None = Field(default=None, description="The first picture's seed.")
    temperature: float = Field(
        default=1.0, ge=0, le=2, description="0 draws the likeliest picture."
    )
    metadata: Metadata = None


TXT2IMG = Kind(
    "txt2img",
    Txt2ImgParams,
    "images",
    "Draw pictures of a prompt",
    {"prompt": "a large red circle on a white background", "seed": 7},
)
