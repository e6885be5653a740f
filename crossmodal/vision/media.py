"""What kind of picture some bytes are, from their first few; needs no image library."""

from crossmodal.errors import ImageTooLarge, InvalidImage

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
NAMES = "PNG, JPEG, GIF, BMP, TIFF or WebP"


def media_type(data: bytes) -> str:
    """The media type of a picture. Raises `InvalidImage` for anything else."""
    if not data:
        raise InvalidImage("the image is empty: it has zero bytes")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    start = ascii(data[:8].decode("latin-1"))  # as text, with each other byte as \xNN
    raise InvalidImage(f"this is no image: it starts with {start}, not as a {NAMES} does")


def check_size(size: int, max_bytes: int) -> None:
    """Raise `ImageTooLarge` when a file of `size` bytes is over the limit."""
    if size > max_bytes:
        raise ImageTooLarge(
            f"the image is {size} bytes, {max_bytes} are allowed: "
            "shrink it, or raise CROSSMODAL_MAX_IMAGE_BYTES"
        )
