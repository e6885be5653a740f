"""Encoding of pixels to image files, with the params they were made from as metadata."""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from crossmodal.kinds.images import QUALITY, ImageFormat

LEVEL = 1  # of zlib: a drawn picture takes 0.66 ms and 2.3 kB; at Pillow's 6, 0.97 ms and 1.8 kB


EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
MAX_COMMENT = 16_000  # characters: the EXIF data of a JPEG file may have 65,533 bytes


def encode(
    image: NDArray[np.uint8],
    parameters: str | None,
    format_: ImageFormat = "png",
    quality: int | None = None,
) -> bytes:
    """Encode RGB (H, W, 3) as a file, with `parameters`, if any, where image tools read them."""
    if format_ == "png":
        return encode_png(image, parameters)
    file = io.BytesIO()
    exif = {} if parameters is None else {"exif": _comment(parameters)}
    lossy = QUALITY if quality is None else quality
    Image.fromarray(image).save(file, format_.upper(), quality=lossy, **exif)
    return file.getvalue()


def encode_png(image: NDArray[np.uint8], parameters: str | None) -> bytes:
    """Encode RGB (H, W, 3) as PNG, with `parameters`, if any, in the text chunk of that name."""
    info = PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=info, compress_level=LEVEL)
    return file.getvalue()


def _comment(text: str) -> bytes:
    """Return EXIF data with the user comment that image tools read, all big-endian."""
    exif = Image.Exif()
    exif.endian = ">"
    exif[EXIF_IFD] = {USER_COMMENT: b"UNICODE\0" + text[:MAX_COMMENT].encode("utf-16-be")}
    return exif.tobytes()


def parameters_text(
    params: Mapping[str, object], side: tuple[int, int], model: str, version: str
) -> str:
    """Format params by the `parameters` convention: the prompt, then a line of pairs."""
    width, height = side
    named = {name.replace("_", " ").capitalize(): value for name, value in params.items()}
    prompt = named.pop("Prompt", "")
    pairs = named | {"Size": f"{width}x{height}", "Model": model, "Model hash": version}
    return f"{prompt}\n" + ", ".join(f"{name}: {_shown(value)}" for name, value in pairs.items())


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
