"""Detection of a picture's media type from its first bytes, without an image library."""

import re

from crossmodal.errors import ImageTooLarge, InvalidImage

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
)
NAMES = "PNG, JPEG, GIF, BMP, TIFF, WebP, AVIF, HEIC or JPEG XL"
TITLES = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/webp": "WebP",
    "image/avif": "AVIF",
    "image/heic": "HEIC",
    "image/jxl": "JPEG XL",
}
REMEDY = "save it as a PNG or JPEG, and send that"

# Brands of ISO base media files (ISO/IEC 14496-12).
AVIF = (b"avif", b"avis")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")

# Files that users send and that no decoder here reads.
OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\x00\x00\x01\x00[^\x00]\x00", "an icon (ICO)"),
    (rb"\x00\x00\x02\x00[^\x00]\x00.{4}[\x00-\xff]{2}", "a cursor (CUR)"),
    (rb"P[1-7fF][ \t\r\n]", "a PPM, PGM, PBM, PAM or PFM picture"),
    (rb"MM\x00\+", "a big-endian BigTIFF picture"),
    (rb"8BPS", "a Photoshop document (PSD)"),
    (rb"II\xbc\x01", "a JPEG XR picture"),
    (rb"v/1\x01", "an OpenEXR picture"),
    (rb"#\?RADIANCE|#\?RGBE", "a Radiance picture (HDR)"),
    (rb"DDS ", "a DirectDraw surface (DDS)"),
    (rb"qoif", "a QOI picture"),
    (rb"farbfeld", "a farbfeld picture"),
    (rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]", "a PCX picture"),
    (rb"icns", "an icon (ICNS)"),
    (rb"FUJIFILMCCD-RAW|IIRO|IIRS|IIU\x00|\x00MRM", "a camera's raw file"),
    (rb"....ftypcrx ", "a camera's raw file"),
    (rb"....ftyp", "a video"),
    (rb"\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"%PDF-", "a PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!doctype svg.*?)?<svg",
        "an SVG drawing",
    ),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)", "an HTML page"),
    # TGA has no signature: these match all valid headers; newer files have TGA_END.
    (
        rb"[^\x00]?[\x00-\xff]?\x00[\x02\x03\x0a\x0b]\x00{5}.{8}[\x08\x0f\x10\x18\x20]",
        "a TGA picture",
    ),
    (rb".\x01[\x01\x09]..[\x01-\xff].[\x0f\x10\x18\x20].{8}[\x08\x10]", "a TGA picture"),
)
TGA_END = b"TRUEVISION-XFILE.\x00"
HEAD = 1_000  # bytes that are searched for the root of an SVG or HTML file


def named(kind: str) -> str:
    """Return the name of a media type's files, with an article."""
    title = TITLES[kind]
    return f"{'an' if title == 'AVIF' else 'a'} {title} file"


def media_type(data: bytes) -> str:
    """Return the media type of a picture. Raises `InvalidImage` for anything else."""
    if not data:
        raise InvalidImage("the image is empty: it has zero bytes")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[4:8] == b"ftyp" and (kind := _boxed(data)):
        return kind
    if title := _other(data):
        raise InvalidImage(f"the file is {title}, which is not supported: {REMEDY}")
    start = data[:8]
    is_text = start.isascii() and start.decode("latin-1").isprintable()
    said = f"'{start.decode()}'" if is_text else f"the bytes {start.hex(' ')}"
    raise InvalidImage(
        f"the file is not a supported image: it starts with {said}. Send a {NAMES} file"
    )


def _boxed(data: bytes) -> str:
    """Return the media type by any brand of a file of boxes: the major one may be generic."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, size, 4))]
    if any(brand in AVIF for brand in brands):
        return "image/avif"
    return "image/heic" if any(brand in HEIC for brand in brands) else ""


def _other(data: bytes) -> str:
    head = data[:HEAD]
    for pattern, title in OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return title
    return "a TGA picture" if data.endswith(TGA_END) else ""


def check_size(size: int, max_bytes: int) -> None:
    """Raise `ImageTooLarge` if a file of `size` bytes is over the limit."""
    if size > max_bytes:
        raise ImageTooLarge(
            f"the image is {size} bytes, {max_bytes} are allowed: "
            "shrink it, or raise CROSSMODAL_MAX_IMAGE_BYTES"
        )
