"""The params that choose the format of a job's picture files."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo

from crossmodal.kinds.base import ItemParams, Kind

ImageFormat = Literal["png", "webp", "jpeg"]
"""The suffix of the file's name; its media type is `image/` and this."""

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
QUALITY = 90  # the default


def _of_what_loses(quality: int | None, others: ValidationInfo) -> int | None:
    if quality is not None and others.data.get("format") == "png":
        raise ValueError("png has no quality: set `format` to webp or jpeg")
    return quality


class ImageParams(ItemParams):
    """Params of a kind that makes pictures, with the format of their files.

    These fields concern the files only: models ignore them, and no file's metadata has them. A
    kind without them gets PNG files with its params as metadata.
    """

    format: ImageFormat = Field(default="png", description="Format of the files.")
    quality: Annotated[int | None, Field(ge=1, le=100), AfterValidator(_of_what_loses)] = Field(
        default=None, description=f"Quality of webp and jpeg files; default: {QUALITY}."
    )
    embed_metadata: bool = Field(
        default=True, description="Write the prompt and params into the files, as metadata."
    )


_PLAIN = ImageParams.model_construct()


def files_of(params: ItemParams) -> ImageParams:
    """Return the file options of params; if their kind has none, PNG with metadata."""
    return params if isinstance(params, ImageParams) else _PLAIN


def stored_format(kind: Kind, raw: Mapping[str, Any]) -> str:
    """Return the format in which a job with these raw fields stores its pictures."""
    chosen = raw.get("format") if issubclass(kind.params, ImageParams) else None
    return str(chosen or _PLAIN.format)
