"""Pixels to PNG files that say how they were made."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

LEVEL = 1  # of zlib: a drawn picture takes 0.66 ms and 2.3 kB; at Pillow's 6, 0.97 ms and 1.8 kB


def encode_png(image: NDArray[np.uint8], parameters: str) -> bytes:
    """RGB (H, W, 3) as PNG, with `parameters` in the text chunk that image tools read."""
    info = PngInfo()
    info.add_text("parameters", parameters)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=info, compress_level=LEVEL)
    return file.getvalue()


def parameters_text(
    prompt: str, seed: int, temperature: float, side: tuple[int, int], model: str, version: str
) -> str:
    """The `parameters` convention: the prompt, then one line of `Name: value` pairs."""
    width, height = side
    return (
        f"{prompt}\nSeed: {seed}, Temperature: {temperature:g}, Size: {width}x{height}, "
        f"Model: {model}, Model hash: {version}"
    )
