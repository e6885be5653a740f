"""Pictures in another format than they are stored in, for which Pillow is needed."""

import io

from crossmodal.errors import ExtraMissing


def converted(picture: bytes, kind: str, quality: int) -> bytes:
    """A picture's file as one that Pillow calls `kind`. Raises `ExtraMissing` without Pillow."""
    try:
        from PIL import Image  # which few producers need
    except ImportError as e:
        raise ExtraMissing(
            f"a picture as {kind} needs Pillow, which is not installed: pip install pillow"
        ) from e
    file = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(file, kind, quality=quality)
    return file.getvalue()
