"""Formats that phones and browsers write, and what is said of those that nobody decodes here."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.vision import formats
from crossmodal.vision.decode import PictureFile, decode
from crossmodal.vision.jxl import jxl_size
from crossmodal.vision.media import media_type
from tests.at_once import at_once
from tests.unit.test_decode import LIMIT, encoded

FORMS = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
EXIF_6 = Image.Exif()
EXIF_6[0x0112] = 6
MODERN = [("AVIF", "image/avif"), ("HEIF", "image/heic"), ("JXL", "image/jxl")]


@at_once("kind, type_", MODERN)
@at_once("mode", ["RGB", "RGBA", "L"])
def test_what_phones_and_browsers_write_is_decoded(kind: str, type_: str, mode: str) -> None:
    data = encoded(FORMS.convert(mode), kind, quality=90)
    assert media_type(data) == type_
    found = decode(data, LIMIT)
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - np.asarray(FORMS)).mean() < 3


@at_once("kind, type_", MODERN)
def test_their_transparency_is_flattened_on_white(kind: str, type_: str) -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert (decode(encoded(clear, kind), LIMIT) > 250).all()


@at_once("kind, type_", [*MODERN, ("WEBP", "image/webp")])
@at_once("part", [0.1, 0.5, 0.9])
def test_part_of_one_is_refused(kind: str, type_: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(InvalidImage, match="cannot be decoded"):
        decode(data[: int(len(data) * part)], LIMIT)


@at_once("kind", ["AVIF", "HEIF"])
def test_one_that_was_taken_sideways_is_turned_upright(kind: str) -> None:
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 20, 20))
    pixels = decode(encoded(image, kind, quality=95, exif=EXIF_6.tobytes()), LIMIT)
    assert pixels.shape == (40, 20, 3)
    assert pixels[5].mean() < 20
    assert pixels[35].mean() > 235


@at_once("kind, type_", MODERN)
def test_one_that_is_too_large_is_refused_from_its_header(kind: str, type_: str) -> None:
    with pytest.raises(ImageTooLarge, match="64 × 48"):
        decode(encoded(FORMS, kind), 64 * 48 - 1)


@at_once(
    "size", [(1, 1), (8, 8), (256, 256), (300, 250), (2500, 1500), (9000, 7), (513, 1025), (64, 48)]
)
def test_the_size_of_a_jpeg_xl_is_read_from_its_header(size: tuple[int, int]) -> None:
    for options in ({}, {"use_container": True}):
        data = encoded(Image.new("RGB", size), "JXL", effort=1, **options)
        assert jxl_size(data) == size


@at_once("kind, title, extra", [("HEIF", "HEIC", "heif"), ("JXL", "JPEG XL", "jxl")])
def test_without_its_extra_a_format_is_named_with_what_to_do(
    kind: str, title: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "is_installed", lambda name: name != extra)
    said = rf"a {title} file.*save it as a PNG or JPEG.*pip install 'crossmodal-jobs\[{extra}\]'"
    with pytest.raises(InvalidImage, match=said):
        decode(encoded(FORMS, kind), LIMIT)


def pillow_writes(kind: str, **options: Any) -> bytes:
    return encoded(FORMS, kind, **options)


@at_once(
    "data, said",
    [
        (pillow_writes("JPEG2000"), "a JPEG 2000 picture"),
        (pillow_writes("JPEG2000", no_jp2=True), "a JPEG 2000 picture"),
        (pillow_writes("ICO", sizes=[(32, 32)]), r"an icon \(ICO\)"),
        (pillow_writes("PPM"), "a PPM"),
        (encoded(FORMS.convert("L"), "PPM"), "a PPM"),
        (pillow_writes("TGA"), "a TGA picture"),
        (pillow_writes("TGA", compression="tga_rle"), "a TGA picture"),
        (encoded(FORMS.convert("L"), "TGA"), "a TGA picture"),
        (encoded(FORMS.quantize(9), "TGA"), "a TGA picture"),
        (pillow_writes("PCX"), "a PCX picture"),
        (pillow_writes("PDF"), "a PDF"),
        (pillow_writes("EPS"), "a PostScript file"),
        (pillow_writes("DDS"), r"a DirectDraw surface \(DDS\)"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop document"),
        (b"MM\0+\0\x08\0\0" + bytes(40), "a big-endian BigTIFF picture"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="x"/>', "an SVG drawing"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "a video"),
        (b"\0\0\0\x18ftypcrx " + bytes(40), "a camera's raw file"),
    ],
)
def test_what_nobody_decodes_here_is_named_with_what_to_do(data: bytes, said: str) -> None:
    with pytest.raises(
        InvalidImage, match=rf"the file is {said}.* not supported: save it as a PNG"
    ):
        media_type(data)


@at_once("data", [b"hello, I am a text file", b'{"a": 1}', bytes(64), b"\x01\x02\x03" * 30])
def test_what_is_no_picture_is_called_nothing_else(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="not a supported image"):
        media_type(data)


def animation() -> bytes:
    """A WebP of two frames, the first of which is but a part of its canvas."""
    first = encoded(Image.new("RGB", (20, 10), (255, 0, 0)), "WEBP", lossless=True)[12:]
    head = struct.pack("<I", 5)[:3] + struct.pack("<I", 3)[:3]  # halves of its place
    head += struct.pack("<I", 19)[:3] + struct.pack("<I", 9)[:3] + bytes(4)
    frame = b"ANMF" + struct.pack("<I", len(head + first)) + head + first
    sides = struct.pack("<I", 39)[:3] + struct.pack("<I", 29)[:3]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([0x12, 0, 0, 0]) + sides
    loop = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + canvas + loop + frame + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_the_first_frame_of_a_webp_is_put_where_it_belongs() -> None:
    found = decode(animation(), LIMIT)
    expected = Image.open(io.BytesIO(animation())).convert("RGBA")
    white = Image.new("RGBA", expected.size, "white")
    assert found.shape == (30, 40, 3)
    assert (found == np.asarray(Image.alpha_composite(white, expected).convert("RGB"))).all()


@at_once("options", [{}, {"lossless": True}, {"quality": 60, "alpha_quality": 50}])
@at_once("mode", ["RGB", "RGBA"])
def test_a_webp_is_what_pillow_says_it_is(options: dict[str, Any], mode: str) -> None:
    image = FORMS.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    data = encoded(image, "WEBP", **options)
    pillows = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", pillows.size, "white")
    expected = np.asarray(Image.alpha_composite(white, pillows).convert("RGB")).astype(int)
    assert np.abs(decode(data, LIMIT) - expected).max() <= 2


@at_once("kind", ["PNG", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "GIF"])
def test_a_large_picture_of_any_format_is_reduced(kind: str) -> None:
    image = Image.radial_gradient("L").resize((1030, 770)).convert("RGB")
    data = encoded(image, kind)
    whole, small = decode(data, LIMIT), PictureFile(data, LIMIT, 48).pixels()
    assert small.shape == (97, 129, 3)
    shrunk = np.asarray(Image.fromarray(whole).reduce(8)).astype(int)
    assert np.abs(small - shrunk).max() <= 1
