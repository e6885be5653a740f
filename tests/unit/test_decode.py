"""Every kind of picture a user may send, made here in its real format."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pillow_heif import register_heif_opener
from pillow_jxl import JpegXLImagePlugin

from crossmodal.errors import ImageTooLarge, InvalidImage
from crossmodal.vision.decode import PictureFile, decode
from crossmodal.vision.encode import encode_png, parameters_text
from crossmodal.vision.media import media_type
from crossmodal.vision.preprocess import fit_square
from crossmodal.vision.webp import webp_size
from tests.at_once import at_once

register_heif_opener()
assert JpegXLImagePlugin.JXLImageFile.format in Image.SAVE  # by its import

RED, LIMIT = (220, 30, 35), 50_000_000


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def red(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new("RGB", size, RED).convert(mode)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims `width` × `height`, with next to no data behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def tiff_of_one_tile(side: int, tile: int) -> bytes:
    """A grey TIFF of `side` × `side` pixels in one deflated tile of `tile` × `tile`."""
    data = zlib.compress(bytes(tile * tile))
    # width, height, bits, compression, black is zero, samples, tile's width and height, data
    values = {
        256: side,
        257: side,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: 8,
        325: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    directory = struct.pack("<H", len(values)) + entries + bytes(4)
    return b"II*\x00" + struct.pack("<I", 8 + len(data)) + data + directory


@at_once(
    "name, data",
    [
        ("png", encoded(red(), "PNG")),
        ("jpeg", encoded(red(), "JPEG", quality=95)),
        ("cmyk", encoded(red("CMYK"), "JPEG", quality=95)),
        ("palette", encoded(red().quantize(4), "PNG")),
        ("alpha", encoded(red("RGBA"), "PNG")),
        ("webp", encoded(red(), "WEBP", lossless=True)),
        ("bmp", encoded(red(), "BMP")),
        ("tiff", encoded(red(), "TIFF")),
    ],
)
def test_a_red_picture_is_red_in_every_format(name: str, data: bytes) -> None:
    pixels = decode(data, LIMIT)
    assert pixels.shape == (20, 40, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 12


def test_a_grey_picture_is_grey() -> None:
    pixels = decode(encoded(Image.new("L", (8, 8), 99), "PNG"), LIMIT)
    assert (pixels == 99).all()


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = Image.fromarray(np.full((8, 8), 0x8040, np.uint16))
    assert (decode(encoded(deep, "PNG"), LIMIT) == 0x80).all()


def test_transparency_is_flattened_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (decode(encoded(clear, "PNG"), LIMIT) == 255).all()


def test_a_transparent_palette_is_flattened_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    assert (decode(encoded(image, "PNG", transparency=0), LIMIT) == 255).all()


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, LIMIT)[0, 0].tolist() == [255, 0, 0]


def test_an_exif_rotated_picture_is_turned_upright() -> None:
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 20, 20))  # left half black
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that left is up
    pixels = decode(encoded(image, "JPEG", quality=95, exif=exif), LIMIT)
    assert pixels.shape == (40, 20, 3)
    assert pixels[5].mean() < 20
    assert pixels[35].mean() > 235


@at_once("orientation", range(1, 9))
def test_every_way_to_hold_a_camera_is_turned_upright(orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (decode(data, LIMIT) == np.asarray(upright)).all()


def photo(width: int, height: int, **options: Any) -> bytes:
    """A JPEG with large smooth forms and some noise, as a camera's has."""
    random = np.random.default_rng(0)
    forms = Image.fromarray(random.integers(0, 255, (height // 80, width // 80, 3), np.uint8))
    noise = random.normal(0, 4, (height, width, 1))
    pixels = np.asarray(forms.resize((width, height), Image.Resampling.BICUBIC)) + noise
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", **options)


@at_once("options", [{}, {"progressive": True}, {"subsampling": 0}])
@at_once("size", [(1600, 1200), (1000, 1500), (810, 2000)])
def test_a_reduced_photo_is_nearly_what_it_is_in_full(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    data = photo(*size, **options)
    full, reduced = decode(data, LIMIT), PictureFile(data, LIMIT, 96).pixels()
    assert reduced.size * 15 < full.size
    assert min(reduced.shape[:2]) >= 2 * 96
    difference = np.abs(fit_square(full, 96).astype(int) - fit_square(reduced, 96))
    assert difference.mean() < 3  # its centre is up to half a pixel off, of the reduced ones


def test_a_photo_less_than_four_times_the_side_is_not_reduced() -> None:
    data = photo(400, 383)
    assert (PictureFile(data, LIMIT, 96).pixels() == decode(data, LIMIT)).all()


def deep(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.full((height, width), 0x8040, np.uint16))


def jpeg_of_three_scans(grey: Image.Image) -> bytes:
    """A baseline JPEG whose three components come one after the other, as few programs write it."""
    head, _, rest = encoded(grey, "JPEG").partition(b"\xff\xda")
    before, _, after = head.partition(b"\xff\xc0")
    frame, tables = after[:8], after[11:]
    components = b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    frame = b"\x00\x11" + frame[2:7] + b"\x03" + components
    data = rest[8:-2]
    scans = (b"\xff\xda\x00\x08\x01" + bytes([i, 0, 0, 63, 0]) + data for i in (1, 2, 3))
    return before + b"\xff\xc0" + frame + tables + b"".join(scans) + b"\xff\xd9"


def large_files() -> dict[str, bytes]:
    """A picture of six megapixels in whatever way costs a decoder memory."""
    size = 3000, 2000
    color = Image.linear_gradient("L").resize(size).convert("RGB")
    clear = color.copy()
    clear.putalpha(128)
    strip = {"compression": "tiff_lzw", "tiffinfo": {278: size[1]}}
    progressive = {"progressive": True, "subsampling": 0}
    return {
        "rgb.png": encoded(color, "PNG"),
        "rgba.png": encoded(clear, "PNG"),
        "deep.png": encoded(deep(*size), "PNG"),
        "palette.png": encoded(color.quantize(9), "PNG"),
        "baseline.jpg": encoded(color, "JPEG"),
        "progressive.jpg": encoded(color, "JPEG", **progressive),
        "cmyk.jpg": encoded(color.convert("CMYK"), "JPEG", **progressive),
        "scans.jpg": jpeg_of_three_scans(color.convert("L")),
        "lossy.webp": encoded(color, "WEBP", method=0),
        "lossless.webp": encoded(clear, "WEBP", lossless=True, method=0),
        "palette.gif": encoded(color.quantize(9), "GIF", transparency=0),
        "rgb.bmp": encoded(color, "BMP"),
        "raw.tif": encoded(color, "TIFF"),
        "strip.tif": encoded(clear, "TIFF", **strip),
        "deep.tif": encoded(deep(*size), "TIFF", **strip),
        "rgba.avif": encoded(clear, "AVIF", speed=10),
        "rgba.heic": encoded(clear, "HEIF"),
        "rgb.jxl": encoded(color, "JXL", effort=1, lossless=True),
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how much memory was in use is in /proc")
def test_no_picture_needs_more_memory_than_its_header_says(tmp_path: Path) -> None:
    files = large_files()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = [sys.executable, "-m", "tests.decode_memory", *(str(tmp_path / n) for n in files)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    told = subprocess.check_output(program, env=environment, text=True)
    found = dict(zip(files, map(json.loads, told.splitlines()), strict=True))
    assert {name for name, (need, peak) in found.items() if not peak < need < 2 * peak} == set()


@at_once("kind", [{}, {"lossless": True}, {"exif": b"Exif"}])
def test_a_large_webp_is_refused_before_memory_is_taken_for_its_canvas(
    kind: dict[str, Any],
) -> None:
    data = encoded(red(size=(400, 300)), "WEBP", **kind)
    assert webp_size(data) == (400, 300)
    with pytest.raises(ImageTooLarge, match="400 × 300"):
        decode(data, 400 * 300 - 1)


def test_zero_bytes_are_no_image() -> None:
    with pytest.raises(InvalidImage, match="zero bytes"):
        decode(b"", LIMIT)


def test_text_is_no_image() -> None:
    with pytest.raises(InvalidImage, match="not a supported image"):
        decode(b"hello, I am a text file", LIMIT)


@at_once("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@at_once("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_or_its_loss_is_harmless(kind: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(InvalidImage) as caught:
        decode(data[: int(len(data) * part)], LIMIT)
    assert caught.value.code == "invalid_image"


def test_a_bomb_is_refused_from_its_header_with_memory_flat() -> None:
    bomb = png_of_size(30_000, 30_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageTooLarge, match="30000 × 30000"):
        decode(bomb, LIMIT)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 20_000  # its pixels would be 2.7 GB


def test_a_tile_larger_than_its_picture_is_refused_before_it_is_decoded() -> None:
    picture = tiff_of_one_tile(16, tile=2048)
    assert decode(picture, 2048 * 2048).shape == (16, 16, 3)
    with pytest.raises(ImageTooLarge, match="2048 × 2048"):
        decode(picture, 2048 * 2048 - 1)


def test_noise_behind_an_image_signature_is_refused() -> None:
    for signature in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\x00"):
        with pytest.raises(InvalidImage):
            decode(signature + bytes(range(200)), LIMIT)


def test_media_types_are_read_from_the_bytes() -> None:
    assert media_type(encoded(red(), "PNG")) == "image/png"
    assert media_type(encoded(red(), "JPEG")) == "image/jpeg"
    assert media_type(encoded(red(), "WEBP")) == "image/webp"


def test_png_carries_its_parameters() -> None:
    text = parameters_text(
        {"prompt": "a réd circle ☃", "seed": 7, "temperature": 1.0}, (8, 8), "scenes", "abc"
    )
    data = encode_png(np.zeros((8, 8, 3), np.uint8), text)
    assert Image.open(io.BytesIO(data)).info["parameters"] == (
        "a réd circle ☃\nSeed: 7, Temperature: 1, Size: 8x8, Model: scenes, Model hash: abc"
    )


@at_once("size", [(96, 96), (200, 100), (100, 301), (10, 10), (1, 500)])
def test_any_picture_becomes_a_square(size: tuple[int, int]) -> None:
    pixels = np.asarray(red(size=size))
    fitted = fit_square(pixels, 96)
    assert fitted.shape == (96, 96, 3)
    assert (fitted == RED).all()
