"""What a job chooses of the files of the pictures that it makes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo

from crossmodal.kinds.base import ItemParams, Kind

ImageFormat = Literal["png", "webp", "jpeg"]
"""A file is named by it, and its media type is `image/` and this."""

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
QUALITY = 90  # where a job asks for none


def _of_what_loses(quality: int | None, others: ValidationInfo) -> int | None:
    if quality is not None and others.data.get("format") == "png":
        raise ValueError("only webp and jpeg have one: choose one of them as `format`")
    return quality


class ImageParams(ItemParams):
    """Params of a kind that makes pictures, with what their files are to be.

    They are about the files alone: no model looks at them, and no file tells them. A kind without
    them gets PNG files that tell its params.
    """

    format: ImageFormat = Field(default="png", description="Of the files.")
    quality: Annotated[int | None, Field(ge=1, le=100), AfterValidator(_of_what_loses)] = Field(
        default=None, description=f"Of webp and jpeg, which lose something; {QUALITY} if not given."
    )
    embed_metadata: bool = Field(
        default=True, description="Whether the files tell what they were made of."
    )


_PLAIN = ImageParams.model_construct()


def files_of(params: ItemParams) -> ImageParams:
    """What params say of the files; PNG that tells them where their kind leaves no choice."""
    return params if isinstance(params, ImageParams) else _PLAIN


def stored_format(kind: Kind, raw: Mapping[str, Any]) -> str:
    """The format in which a job with such fields stores its pictures."""
    chosen = raw.get("format") if issubclass(kind.params, ImageParams) else None
    return str(chosen or _PLAIN.format)
