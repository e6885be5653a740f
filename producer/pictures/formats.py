"""Conversion of pictures to another file format, with Pillow."""

import io

from crossmodal.errors import ExtraMissing


def converted(picture: bytes, kind: str, quality: int) -> bytes:
    """Return a picture as a file of Pillow format `kind`. Raises `ExtraMissing` without Pillow."""
    try:
        from PIL import Image  # optional: few producers need it
    except ImportError as e:
        raise ExtraMissing(
            f"a picture as {kind} needs Pillow, which is not installed: pip install pillow"
        ) from e
    file = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(file, kind, quality=quality)
    return file.getvalue()
