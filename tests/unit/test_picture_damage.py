"""What is wrong with a file beside its pixels costs nothing; wrong pixels are refused, in words."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crossmodal.errors import InvalidImage
from crossmodal.vision.decode import PictureFile, decode
from tests.at_once import at_once
from tests.png_files import chunk, png_of, with_chunk
from tests.tiff_files import FLOAT, SIGNED, UNSIGNED, tiff_of
from tests.unit.test_decode import LIMIT, encoded, photo

RANDOM = np.random.default_rng(0)
FORMS = Image.fromarray(RANDOM.integers(0, 255, (6, 8, 3), np.uint8)).resize((64, 48))
PNG, JPEG = encoded(FORMS, "PNG"), encoded(FORMS, "JPEG", quality=90)
RAMP = np.arange(64 * 48, dtype=np.float64).reshape(48, 64) / (64 * 48 - 1)
RAMP_8 = np.round(RAMP * 255).astype(np.uint8)
LOREM = zlib.compress(b"Lorem ipsum " * 200_000)  # 2.4 MB
RAW_EXIF = b"Raw profile type exif\0"


def grey(data: bytes) -> NDArray[np.int64]:
    return decode(data, LIMIT)[..., 0].astype(np.int64)


@at_once(
    "extra",
    [
        chunk(b"eXIf", b"Exif\0\0LoremIpsum"),
        chunk(b"eXIf", b"II*\0" + b"\xff" * 20),
        chunk(b"eXIf", b""),
        chunk(b"tEXt", RAW_EXIF + b"\nexif\n      12\nnot hexadecimal"),
        chunk(b"tEXt", RAW_EXIF + b"\nexif\n       4\ndeadbeef"),
        chunk(b"zTXt", RAW_EXIF + b"\0no deflated data"),
        chunk(b"zTXt", RAW_EXIF + b"\0" + LOREM),
        chunk(b"zTXt", b"Comment\0\0" + LOREM),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LOREM),
        chunk(b"iTXt", b""),
        chunk(b"iCCP", b"profile\0\0" + LOREM),
        chunk(b"iCCP", b"profile\0\0no deflated data"),
        chunk(b"iCCP", b"x"),
        chunk(b"tEXt", b"Comment\0hello", is_sound=False),
        chunk(b"tRNS", b"\0\0\0\0\0\0", is_sound=False),
        chunk(b"tRNS", b"\0"),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", bytes(32)),
        chunk(b"cICP", bytes([99, 99, 0, 1])),
        chunk(b"pHYs", b"\0" * 3),
        chunk(b"acTL", b"\0\0\0\5\0\0\0\0") + chunk(b"fcTL", bytes(4)),
    ],
)
def test_a_broken_chunk_beside_the_pixels_changes_none_of_them(extra: bytes) -> None:
    assert (decode(with_chunk(PNG, extra), LIMIT) == np.asarray(FORMS)).all()


def test_exif_as_text_turns_a_png_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    digits = exif.tobytes().hex().encode()
    text = chunk(b"zTXt", RAW_EXIF + b"\0" + zlib.compress(b"\nexif\n %d\n" % len(digits) + digits))
    assert decode(with_chunk(PNG, text), LIMIT).shape == (64, 48, 3)


@at_once("marker", [0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE])
@at_once(
    "body",
    [
        b"Exif\0\0LoremIpsum",
        b"Exif\0\0II*\0" + b"\xff" * 20,
        b"MPF\0II*\0" + b"\xff" * 20,
        b"ICC_PROFILE\0\1\1broken",
        b"ICC_PROFILE\0\2\1",
        b"Photoshop 3.0\x008BIM\4",
        b"",
        b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>x",
    ],
)
def test_a_broken_segment_beside_the_pixels_changes_none_of_them(marker: int, body: bytes) -> None:
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body
    assert (decode(JPEG[:2] + segment + JPEG[2:], LIMIT) == decode(JPEG, LIMIT)).all()


@at_once("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
@at_once("side", [None, 24])
def test_a_jpeg_that_lacks_only_its_end_is_whole(options: dict[str, Any], side: int | None) -> None:
    data = photo(800, 600, **options)
    whole = PictureFile(data, LIMIT, side).pixels()
    for lost in (1, 2):
        assert (PictureFile(data[:-lost], LIMIT, side).pixels() == whole).all()


@at_once("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
@at_once("part", [0.3, 0.6, 0.9, 0.99])
def test_a_jpeg_that_lacks_rows_is_refused(options: dict[str, Any], part: float) -> None:
    data = photo(800, 600, **options)
    with pytest.raises(InvalidImage, match=r"a JPEG file .* is truncated.* Send the whole file"):
        decode(data[: int(len(data) * part)], LIMIT)


def test_a_progressive_jpeg_that_lacks_scans_is_refused() -> None:
    data = photo(800, 600, progressive=True)
    last = data.rfind(b"\xff\xda")
    with pytest.raises(InvalidImage, match="is truncated"):
        decode(data[: data.rfind(b"\xff\xc4", 0, last)], LIMIT)


@at_once("order", ["<", ">"])
def test_planes_of_sixteen_bits_are_right(order: str) -> None:
    planes = np.stack([RAMP, 1 - RAMP, RAMP[::-1]]) * 65535
    found = decode(tiff_of(planes.astype(f"{order}u2"), photometric=2), LIMIT)
    assert np.abs(found.astype(int) - (planes / 257).transpose(1, 2, 0)).max() <= 1


def test_a_colormap_of_eight_bits_is_right_and_one_of_sixteen_too() -> None:
    index = RAMP_8
    for scale in (1, 257):
        colors = tuple(int(v) * scale for v in [*range(256), *range(255, -1, -1), *(0,) * 256])
        found = decode(tiff_of(index, photometric=3, colors=colors), LIMIT).astype(int)
        assert (found[..., 0] == index).all()
        assert (found[..., 1] == 255 - index.astype(int)).all()


@at_once("order", ["<", ">"])
def test_grey_floats_from_zero_to_one_are_right(order: str) -> None:
    found = grey(tiff_of(RAMP.astype(f"{order}f4"), FLOAT))
    assert np.abs(found - RAMP_8).max() <= 1


def test_deep_grey_is_right_also_where_white_is_zero() -> None:
    deep = np.round(RAMP * 65535).astype("<u2")
    assert np.abs(grey(tiff_of(deep)) - RAMP_8).max() <= 1
    assert np.abs(grey(tiff_of(65535 - deep, photometric=0)) - RAMP_8).max() <= 1


@at_once(
    "samples, form, said",
    [
        ((RAMP * 2).astype("<f4"), FLOAT, "floating-point samples outside 0 to 1"),
        (np.full((4, 4), np.nan, "<f4"), FLOAT, "floating-point samples outside 0 to 1"),
        ((RAMP * 100).astype("i1"), SIGNED, "signed samples of 8 bits"),
        ((RAMP * 30000).astype("<i2"), SIGNED, "signed samples of 16 bits"),
        ((RAMP * 30000).astype("<i4"), SIGNED, "signed samples of 32 bits"),
        ((RAMP * 2**31).astype("<u4"), UNSIGNED, "samples of 32 bits"),
        (RAMP.astype("<f8"), FLOAT, "of a variety that is not supported"),
    ],
)
def test_samples_of_which_nobody_knows_what_is_white_are_refused(
    samples: NDArray[Any], form: int, said: str
) -> None:
    with pytest.raises(InvalidImage, match=f"{said}.*ave it as a PNG or JPEG"):
        decode(tiff_of(samples, form), LIMIT)


@at_once("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_one_of_its_own_depth(depth: int) -> None:
    most = 2**depth - 1
    numbers = [0, 1, most, 1, 0, most, 0, 1]
    row = sum(number << depth * (7 - i) for i, number in enumerate(numbers))
    raw = b"\0" + row.to_bytes(depth, "big")
    data = png_of((8, 1), depth, 0, raw, chunk(b"tRNS", struct.pack(">H", 1)))
    shown = {0: 0, 1: 255, most: 255}
    assert grey(data)[0].tolist() == [shown[number] for number in numbers]


def test_the_transparent_color_of_sixteen_bits_is_but_one() -> None:
    clear, near = (0x1234, 0x5678, 0x9ABC), (0x1235, 0x5678, 0x9ABC)
    raw = b"\0" + struct.pack(">6H", *clear, *near)
    data = png_of((2, 1), 16, 2, raw, chunk(b"tRNS", struct.pack(">3H", *clear)))
    assert decode(data, LIMIT)[0].tolist() == [[255] * 3, [0x12, 0x56, 0x9A]]


@at_once("alpha, expected", [((0, 0), (10, 20, 30)), ((0, 255), (255, 255, 255))])
def test_a_bmp_whose_alpha_is_all_zero_has_none(
    alpha: tuple[int, int], expected: tuple[int, ...]
) -> None:
    pixels = struct.pack("<8B", 30, 20, 10, alpha[0], 30, 20, 10, alpha[1])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    header += masks + b"BGRs" + bytes(48)
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + 8, 0, 0, 14 + 108) + header + pixels
    assert tuple(decode(data, LIMIT)[0, 0]) == expected


def la_premultiplied() -> bytes:
    """Grey of 60 and alpha of 120, said to be multiplied already."""
    pixels = np.full((4, 4, 2), (60, 120), np.uint8)
    data, alpha = encoded(Image.fromarray(pixels), "TIFF"), "<HHII"
    return data.replace(struct.pack(alpha, 338, 3, 1, 2), struct.pack(alpha, 338, 3, 1, 1))


def test_premultiplied_grey_is_right() -> None:
    assert grey(la_premultiplied())[0, 0] == pytest.approx(60 + 255 - 120, abs=1)


@at_once("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_a_refusal_says_what_the_file_is_and_nothing_of_our_insides(kind: str) -> None:
    data = encoded(FORMS, kind)
    title = {"WEBP": "WebP"}.get(kind, kind)
    for broken in (data[: len(data) // 2], data[:40] + bytes(60), data[:12] + b"\xff" * 90):
        try:
            decode(broken, LIMIT)
        except InvalidImage as e:
            said = str(e)
            assert f"{title} file" in said or "pixels are allowed" in said or " × " in said
            assert not {"<", "0x", "Error", "PIL", "decoder error", "'"} & {*said.split(), *said}
            assert said.endswith(("Send the whole file", "and send that", "MAX_IMAGE_PIXELS"))


@at_once(
    "segment", [(0xE0, b"JFIF\0"), (0xE0, b"JFIF\0\1"), (0xEE, b"Adobe"), (0xEE, b"Adobe\0\x64")]
)
def test_a_segment_that_breaks_off_changes_no_pixel(segment: tuple[int, bytes]) -> None:
    marker, body = segment
    stub = b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body
    assert (decode(JPEG[:2] + stub + JPEG[2:], LIMIT) == decode(JPEG, LIMIT)).all()
    first = 4 + int.from_bytes(JPEG[4:6], "big")  # Pillow's own JFIF segment is left out
    assert (decode(JPEG[:2] + stub + JPEG[first:], LIMIT) == decode(JPEG, LIMIT)).all()


GIF = encoded(FORMS.quantize(16), "GIF")
GIF_BLOCKS = 13 + 3 * 16  # where they begin, behind the colors


@at_once(
    "extra",
    [
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xff\x0bNETSCAPE2.0\x02\1\0\0",
        b"!\xff\0",
        b"!\xfe\xff" + b"x" * 255 + b"\0",
        b"!\x01\x0c" + bytes(12) + b"\0",
        b"!\xf9\x01\0\0",
    ],
)
def test_a_broken_block_beside_the_pixels_of_a_gif_changes_none(extra: bytes) -> None:
    data = GIF[:GIF_BLOCKS] + extra + GIF[GIF_BLOCKS:]
    assert (decode(data, LIMIT) == decode(GIF, LIMIT)).all()


def test_a_gif_is_clear_outside_of_its_first_frame() -> None:
    frame = encoded(Image.new("P", (4, 2), 0), "GIF")
    start = frame.index(b",\0\0\0\0")
    moved = frame[:start] + b"," + struct.pack("<HH", 3, 1) + frame[start + 5 :]
    data = moved[:6] + struct.pack("<HH", 10, 6) + moved[10:]
    found = grey(data)
    assert found.shape == (6, 10)
    assert (found[1:3, 3:7] == 0).all()
    found[1:3, 3:7] = 255
    assert (found == 255).all()


@at_once("mode, photometric", [("LA", 1), ("LAB", 8)])
def test_planes_that_would_be_read_wrongly_are_refused(mode: str, photometric: int) -> None:
    data = encoded(FORMS.convert("RGB").convert(mode), "TIFF", compression="tiff_lzw")
    one, planes = struct.pack("<HHII", 284, 3, 1, 1), struct.pack("<HHII", 284, 3, 1, 2)
    assert decode(data, LIMIT).shape == (48, 64, 3)
    assert one in data
    with pytest.raises(InvalidImage, match=r"a TIFF file .* of a variety that is not supported"):
        decode(data.replace(one, planes), LIMIT)


def lossless(width: int, height: int) -> bytes:
    """A grey JPEG of the lossless process, in which no pixel differs from its neighbor."""

    def segment(marker: int, body: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body

    frame = segment(0xC3, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0))
    table = segment(0xC4, bytes([0, 1, *(0,) * 15, 0]))  # one bit for no difference
    scan = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return b"\xff\xd8" + frame + table + scan + bytes(width * height // 8) + b"\xff\xd9"


@at_once("side", [None, 10])
def test_a_lossless_jpeg_is_reduced_as_any(side: int | None) -> None:
    found = PictureFile(lossless(128, 96), LIMIT, side).pixels()
    assert found.shape == ((96, 128, 3) if side is None else (24, 32, 3))
    assert (found == 128).all()


def runs_of_halves(*rows: bytes) -> bytes:
    """A BMP of five pixels by two, of sixteen greys, compressed in runs of half bytes."""
    colors = b"".join(bytes([17 * i] * 3 + [0]) for i in range(16))
    pixels = b"\0\0".join(rows) + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 5, 2, 1, 4, 2, len(pixels), 0, 0, 0, 0)
    start = 14 + 40 + len(colors)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head + colors + pixels


def test_rows_of_a_bmp_that_run_into_the_next_are_refused() -> None:
    lower, upper = b"\x05\x12", b"\0\5\x34\x56\x70\0"
    whole = [[3 * 17, 4 * 17, 5 * 17, 6 * 17, 7 * 17], [17, 34, 17, 34, 17]]
    assert grey(runs_of_halves(lower, upper)).tolist() == whole
    longer = b"\0\6\x34\x56\x78\0"
    with pytest.raises(InvalidImage, match=r"a BMP file .* of a variety that is not supported"):
        decode(runs_of_halves(longer, upper), LIMIT)
