"""What is drawn as a file: its pixels, and what it tells of how it was made."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crossmodal.errors import InvalidParams
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.record import ImageRef
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import Metadata
from crossmodal.kinds.images import FORMATS, ImageFormat, files_of, stored_format
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.txt2img import TXT2IMG
from crossmodal.settings import load_settings
from crossmodal.vision.encode import MAX_COMMENT, encode, encode_png
from tests.at_once import at_once
from worker import blobs
from worker.blobs import Blobs
from worker.host.protocol import Answer

TEXT = "a réd circle ☃ 🎈\nSeed: 7, Temperature: 1, Size: 40x30"
LOSSY: tuple[ImageFormat, ...] = ("webp", "jpeg")
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """Smooth forms, and some noise, in colour."""
    random = np.random.default_rng(0)
    forms = Image.fromarray(random.integers(0, 255, (3, 4, 3), np.uint8))
    smooth = np.asarray(forms.resize((40, 30), Image.Resampling.BICUBIC))
    return (smooth + random.normal(0, 4, (30, 40, 1))).clip(0, 255).astype(np.uint8)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def told(data: bytes) -> str | None:
    """The parameters in a file, as AUTOMATIC1111 and others look for them."""
    image = opened(data)
    if image.format == "PNG":
        text: str | None = image.info.get("parameters")
        return text
    comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    if comment is None:
        return None
    assert comment.startswith(b"UNICODE\0")
    return str(comment[8:].decode("utf-16-be"))


@at_once("format_", FORMATS)
def test_a_picture_is_the_same_as_far_as_its_format_can_tell(
    pixels: NDArray[np.uint8], format_: ImageFormat
) -> None:
    image = opened(encode(pixels, TEXT, format_, None if format_ == "png" else 95))
    assert (image.format, image.mode, image.size) == (format_.upper(), "RGB", (40, 30))
    error = np.abs(np.asarray(image).astype(int) - pixels).mean()
    assert error == 0 if format_ == "png" else 0 < error < 12


@at_once("format_", LOSSY)
def test_a_lower_quality_takes_less_and_loses_more(
    pixels: NDArray[np.uint8], format_: ImageFormat
) -> None:
    files = [encode(pixels, None, format_, quality) for quality in (10, 50, 90)]
    assert [len(file) for file in files] == sorted(len(file) for file in files)
    assert len({len(file) for file in files}) == 3
    errors = [np.abs(np.asarray(opened(file)).astype(int) - pixels).mean() for file in files]
    assert errors == sorted(errors, reverse=True)
    assert encode(pixels, None, format_) == files[2]


@at_once("format_", FORMATS)
def test_a_file_tells_how_it_was_made_unless_it_is_not_to(
    pixels: NDArray[np.uint8], format_: ImageFormat
) -> None:
    assert told(encode(pixels, TEXT, format_)) == TEXT
    silent = encode(pixels, None, format_)
    assert told(silent) is None
    assert len(opened(silent).getexif()) == 0


@at_once("format_", LOSSY)
def test_a_text_that_is_too_long_for_a_file_is_cut(
    pixels: NDArray[np.uint8], format_: ImageFormat
) -> None:
    assert told(encode(pixels, "🎈" * 100_000, format_)) == "🎈" * MAX_COMMENT


def test_a_png_is_what_it_always_was(pixels: NDArray[np.uint8]) -> None:
    assert encode(pixels, TEXT) == encode(pixels, TEXT, "png") == encode_png(pixels, TEXT)


# -- as a worker stores them --------------------------------------------------------------------


def stored(
    tmp_path: Path, params: ItemParams, pixels: NDArray[np.uint8], folder: str = ""
) -> list[tuple[ImageRef, bytes]]:
    """What a worker stores of two pictures."""
    worker = Blobs(load_settings(storage_url=tmp_path.as_uri()))
    answer = Answer(
        "scenes", "abc", "exact", np.stack([pixels, pixels]), [], [], {}, [], 1, 0.0, 0.0
    )
    attempt = Attempt("job", 1, {}, 0.0, 0.0, 1, 0, is_last=False, is_suspect=False)
    try:
        refs = worker.put_images(attempt, params, answer, folder)
        return [(ref, worker.store.get(ref)) for ref in refs]
    finally:
        worker.close()


@at_once("format_", FORMATS)
def test_pictures_are_stored_in_the_format_that_is_asked_for(
    tmp_path: Path, pixels: NDArray[np.uint8], format_: ImageFormat
) -> None:
    params = TXT2IMG.build({"prompt": "a circle", "seed": 7, "format": format_})
    for folder in ("", "5-"):
        found = stored(tmp_path, params, pixels, folder)
        for i, (ref, data) in enumerate(found):
            assert (ref.key, ref.media_type) == (
                f"results/job/{folder}{i}.{format_}",
                f"image/{format_}",
            )
            assert (opened(data).format, ref.width, ref.height) == (format_.upper(), 40, 30)
            assert told(data) == (
                f"a circle\nSeed: {7 + i}, Temperature: 1, Size: 40x30, Model: scenes, "
                "Model hash: abc"
            )


def test_quality_and_silence_reach_the_file(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    asked: dict[str, Any] = {"prompt": "a circle", "format": "jpeg", "embed_metadata": False}
    [(_, low), _] = stored(tmp_path, TXT2IMG.build(asked | {"quality": 10}), pixels)
    assert low == encode(pixels, None, "jpeg", 10)
    silent = TXT2IMG.build({"prompt": "a circle", "embed_metadata": False})
    [(_, png), _] = stored(tmp_path, silent, pixels)
    assert (told(png), png) == (None, encode_png(pixels, None))


class Landscape(ItemParams):
    """Of a kind that leaves no choice, with a word of its own that files have too."""

    count: int = 1
    metadata: Metadata = None
    format: str = "landscape"


def test_a_kind_that_leaves_no_choice_gets_png(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Kind("wide", Landscape, "images", "Wide pictures", {})
    monkeypatch.setattr(blobs, "kind_of", lambda params: kind)
    assert stored_format(kind, {"format": "landscape"}) == files_of(Landscape()).format == "png"
    [(ref, data), _] = stored(tmp_path, Landscape(), pixels)
    assert (ref.key, ref.media_type) == ("results/job/0.png", "image/png")
    assert told(data) == "\nFormat: landscape, Size: 40x30, Model: scenes, Model hash: abc"


# -- what may be asked for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"quality": 80}, "quality: png has no quality: set `format` to webp or jpeg"),
        ({"format": "png", "quality": 80}, "quality: png has no quality"),
        ({"format": "webp", "quality": 0}, "quality: Input should be greater than or equal to 1"),
        ({"format": "jpeg", "quality": 101}, "quality: Input should be less than or equal to 100"),
        ({"format": "webp", "quality": "80"}, "quality: Input should be a valid integer"),
        ({"format": "gif"}, "format: Input should be 'png', 'webp' or 'jpeg' (got 'gif')"),
        ({"format": None}, "format: Input should be 'png', 'webp' or 'jpeg'"),
        ({"embed_metadata": 0}, "embed_metadata: Input should be a valid boolean"),
    ],
)
def test_what_a_file_cannot_be_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        TXT2IMG.build({"prompt": "a circle"} | fields)
    assert says in str(caught.value)


def test_a_job_that_says_nothing_of_its_format_stores_png() -> None:
    asked: list[dict[str, Any]] = [{}, {"format": None}, {"format": "png"}, {"format": "webp"}]
    found = [stored_format(TXT2IMG, fields) for fields in asked]
    assert found == ["png", "png", "png", "webp"]
    assert stored_format(IMG2TXT, {"format": "webp"}) == "png"
