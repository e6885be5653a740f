"""Colors are shown as browsers show them: by a profile, by gamma, by code points."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from pillow_heif import register_heif_opener

from crossmodal.errors import InvalidImage
from crossmodal.vision.decode import PictureFile, decode
from tests.at_once import at_once
from tests.png_files import chunk, png_of, with_chunk
from tests.unit.test_decode import LIMIT, encoded

PICTURES = Path(__file__).parents[1] / "data" / "pictures"
COLOR, SHOWN = (200, 100, 50), (216, 93, 24)  # in the profile of the samples, and in sRGB
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3_PROFILE = Image.open(io.BytesIO((PICTURES / "icc_p3.png").read_bytes())).info["icc_profile"]


def middle(data: bytes) -> tuple[int, ...]:
    pixels = decode(data, LIMIT)
    return tuple(int(value) for value in pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def swapped() -> bytes:
    """The profile of sRGB with red and green exchanged."""
    return SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def pixel(*extra: bytes, value: tuple[int, ...] = COLOR) -> bytes:
    return png_of((1, 1), 8, 2, b"\0" + bytes(value), *extra)


@at_once("name", ["icc_p3.png", "icc_p3.jpg"])
def test_a_wide_profile_is_converted_to_srgb(name: str) -> None:
    assert middle((PICTURES / name).read_bytes()) == SHOWN


@at_once("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIF"])
def test_exchanged_primaries_are_exchanged_back_in_every_format(kind: str) -> None:
    register_heif_opener()
    options = {"WEBP": {"lossless": True}, "PNG": {}, "TIFF": {}}.get(kind, {"quality": 95})
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    found = middle(encoded(red, kind, icc_profile=swapped(), **options))
    assert np.abs(np.subtract(found, (0, 255, 0))).max() <= 6


def test_a_profile_in_a_bmp_is_applied() -> None:
    pixels, profile = bytes([0, 0, 255, 0]), swapped()
    head = struct.pack("<IiiHHIIiiII", 124, 1, 1, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16)
    head += b"DEBM" + bytes(52) + struct.pack("<III", 124 + len(pixels), len(profile), 0)
    data = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(pixels) + len(profile), 0, 0, 14 + 124)
    assert middle(data + head + pixels + profile) == (0, 255, 0)
    assert middle(data + head.replace(b"DEBM", b"BGRs") + pixels + profile) == (255, 0, 0)


def test_alpha_is_kept_beside_a_profile() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    found = middle(encoded(image, "PNG", icc_profile=swapped()))
    assert found == pytest.approx((127, 255, 127), abs=1)


def test_a_palette_is_converted_too() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 0)).quantize(4)
    assert middle(encoded(image, "PNG", icc_profile=swapped())) == (0, 255, 0)


def test_grey_under_a_profile_of_rgb_is_converted() -> None:
    assert middle(encoded(Image.new("L", (4, 4), 99), "PNG", icc_profile=swapped())) == (99, 99, 99)


def test_cmyk_of_a_profile_for_rgb_and_a_broken_profile_are_as_without() -> None:
    cmyk = Image.new("RGB", (16, 16), COLOR).convert("CMYK")
    plain = middle(encoded(cmyk, "JPEG"))
    assert middle(encoded(cmyk, "JPEG", icc_profile=SRGB)) == plain
    image = Image.new("RGB", (4, 4), COLOR)
    assert middle(encoded(image, "PNG", icc_profile=b"no profile" * 20)) == COLOR
    assert middle(encoded(image, "PNG", icc_profile=P3_PROFILE[:200])) == COLOR


def test_srgbs_own_profile_changes_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    image = Image.fromarray(noise)
    assert (decode(encoded(image, "PNG", icc_profile=SRGB), LIMIT) == noise).all()


@at_once("name, value", [("gamma of light", 100_000), ("of old Macs", 55_556)])
def test_gamma_of_a_png_is_applied(name: str, value: int) -> None:
    light = (128 / 255) ** (100_000 / value)
    expected = round(255 * (1.055 * light ** (1 / 2.4) - 0.055))
    found = middle(pixel(chunk(b"gAMA", struct.pack(">I", value)), value=(128,) * 3))
    assert found == pytest.approx((expected,) * 3, abs=1)


@at_once("value", [0, 45_455, 45_000, 47_000])
def test_a_gamma_that_is_usual_or_impossible_changes_nothing(value: int) -> None:
    assert middle(pixel(chunk(b"gAMA", struct.pack(">I", value)))) == COLOR


def test_chromaticities_and_code_points_say_the_same_primaries() -> None:
    gamma = chunk(b"gAMA", struct.pack(">I", 45_455))
    by_numbers = middle(pixel(gamma, chunk(b"cHRM", struct.pack(">8I", *P3))))
    assert by_numbers == (215, 93, 31)
    assert middle(pixel(chunk(b"cICP", bytes([12, 13, 0, 1])))) == by_numbers


def test_what_a_png_says_of_color_is_taken_in_the_order_of_browsers() -> None:
    cicp, srgb = chunk(b"cICP", bytes([1, 13, 0, 1])), chunk(b"sRGB", b"\0")
    iccp = chunk(b"iCCP", b"p\0\0" + zlib.compress(swapped()))
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert middle(pixel(cicp, iccp, gamma)) == COLOR
    assert middle(pixel(iccp, gamma)) == middle(pixel(iccp))
    assert middle(pixel(srgb, gamma)) == COLOR


@at_once("name, transfer, white", [("PQ", 16, 148), ("HLG", 18, 191)])
def test_high_range_is_made_to_fit(name: str, transfer: int, white: int) -> None:
    def shown(value: int) -> int:
        return middle(pixel(chunk(b"cICP", bytes([9, transfer, 0, 1])), value=(value,) * 3))[0]

    assert 170 < shown(white) < 220  # paper is not yet what is brightest
    assert shown(0) == 0
    assert shown(255) == 255


def test_a_reduced_picture_has_the_colors_of_a_whole_one() -> None:
    image = Image.new("RGB", (200, 160), COLOR)
    reduced = PictureFile(encoded(image, "PNG", icc_profile=P3_PROFILE), LIMIT, 10).pixels()
    assert reduced.shape == (20, 25, 3)
    assert (reduced == SHOWN).all()


def test_a_profile_that_inflates_without_end_is_left_out() -> None:
    bomb = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**25)))
    data = with_chunk(encoded(Image.new("RGB", (4, 4), COLOR), "PNG"), bomb)
    assert middle(data) == COLOR


def test_a_jpeg_xl_of_inks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder makes RGB of three of them; no encoder here writes one."""
    inks = Image.new("RGB", (32, 32))
    inks.info["icc_profile"] = SRGB.replace(b"RGB ", b"CMYK", 1)
    monkeypatch.setattr("crossmodal.vision.readers.opened", lambda *_: inks)
    data = encoded(Image.new("RGB", (32, 32)), "JXL")
    with pytest.raises(InvalidImage, match=r"JPEG XL file .* a variety that is not supported"):
        decode(data, LIMIT)


def inks_profile() -> bytes:
    """A profile by a table, as those of presses are, in which cyan ink is as red as sRGB's red."""
    white, red, black = bytes([255, 128, 128]), bytes([136, 208, 195]), bytes([0, 128, 128])  # Lab
    straight = bytes(range(256))
    unit = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + straight * 4
    table += (white + black) * 4 + (red + black) * 4 + straight * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    head = struct.pack(
        ">I4sI4s4s4s", 144 + len(table), b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab "
    )
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0")
    return (head + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)).ljust(128, b"\0") + tags + table


@at_once("kind", ["TIFF", "JPEG"])
def test_inks_are_shown_as_their_profile_says(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert middle(encoded(image, kind)) == pytest.approx((0, 255, 255), abs=3)
    found = middle(encoded(image, kind, icc_profile=inks_profile()))
    assert found == pytest.approx((255, 0, 0), abs=10)
