"""Pixels to PNG files that say how they were made."""

import io
from collections.abc import Mapping

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
    params: Mapping[str, object], side: tuple[int, int], model: str, version: str
) -> str:
    """The `parameters` convention: the prompt, then one line of `Name: value` pairs."""
    width, height = side
    named = {name.replace("_", " ").capitalize(): value for name, value in params.items()}
    prompt = named.pop("Prompt", "")
    pairs = named | {"Size": f"{width}x{height}", "Model": model, "Model hash": version}
    return f"{prompt}\n" + ", ".join(f"{name}: {_shown(value)}" for name, value in pairs.items())


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
