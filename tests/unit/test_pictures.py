"""Pictures in every form that an app may hold, and what is said of all others."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import CrossmodalError, ImageTooLarge, InvalidImage
from crossmodal.kinds.fields import BlobRef
from crossmodal.testing import FakeClient
from crossmodal.vision.decode import decode
from producer.pictures.files import bytes_of
from tests.unit.test_decode import encoded, red

LIMIT = 100_000
PNG = encoded(red(), "PNG")
PIXELS = np.random.default_rng(7).integers(0, 256, (5, 7, 4), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(PNG)
    return tmp_path / "red.png"


class Slow(io.RawIOBase):
    """A file that gives a few bytes at a time, as a socket does."""

    def __init__(self) -> None:
        self._file = io.BytesIO(PNG)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, 5))


class Upload:
    """A file of an asynchronous web framework."""

    async def read(self, size: int = -1) -> bytes:
        return PNG


def test_bytes_paths_and_files_are_taken_as_they_are(path: Path) -> None:
    with path.open("rb") as file:
        forms = [
            PNG,
            bytearray(PNG),
            memoryview(PNG),
            str(path),
            path,
            file,
            io.BytesIO(PNG),
            Slow(),
        ]
        assert [bytes_of(form, LIMIT) for form in forms] == [PNG] * len(forms)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_a_pillow_image_is_taken_with_the_pixels_that_it_shows(mode: str) -> None:
    image = red(mode)
    shown = decode(bytes_of(image, LIMIT), 10_000)
    assert np.array_equal(shown, np.asarray(image.convert("RGB")))


def test_sixteen_bits_of_a_pillow_image_become_eight() -> None:
    little = Image.fromarray(np.full((20, 40), 40_000, np.uint16))
    big = Image.frombytes("I;16B", (40, 20), b"\x9c\x40" * 800)
    for image in (little, little.convert("I"), big):
        assert np.array_equal(decode(bytes_of(image, LIMIT), 10_000), np.full((20, 40, 3), 156))


def test_a_pillow_image_stays_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (tmp_path / "turned.jpg").write_bytes(encoded(red(), "JPEG", exif=exif))
    with Image.open(tmp_path / "turned.jpg") as image:
        assert decode(bytes_of(image, LIMIT), 10_000).shape == (40, 20, 3)


@pytest.mark.parametrize(
    "array", [PIXELS[:, :, 0], PIXELS[:, :, :1], PIXELS[:, :, :3], PIXELS, PIXELS[::-1, ::2, :3]]
)
def test_an_array_is_written_as_it_is(array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    with Image.open(io.BytesIO(bytes_of(array, LIMIT))) as image:
        assert np.array_equal(np.asarray(image), np.squeeze(array))


REFUSED: dict[str, tuple[Any, str]] = {
    "a number": (5, "cannot be of type int: give the bytes of a picture's file, its path"),
    "nothing": (None, "cannot be None: give"),
    "a list": ([1, 2], "cannot be of type list"),
    "floats": (np.zeros((4, 4, 3)), r"array of float64 with shape \(4, 4, 3\): give uint8.*255 \*"),
    "channels first": (np.zeros((3, 4, 5), np.uint8), r"as \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
    "a batch of arrays": (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
    "an array of nothing": (np.zeros((0, 4, 3), np.uint8), "shape"),
    "floats of Pillow": (Image.new("F", (4, 4)), "PIL image of floats: convert it to 'RGB'"),
    "text": (io.StringIO("x"), "opened as text: open it with 'rb'"),
    "an upload": (Upload(), "await file.read"),
    "a file of nothing": (io.BytesIO(), "it has zero bytes"),
    "bytes of nothing": (b"", "it has zero bytes"),
    "a URL": ("https://example.com/a.png", "is a URL, and nothing is fetched here"),
    "no such file": ("/no/such.png", "/no/such.png cannot be read: No such file"),
    "an empty path": ("", "path is empty: give the path of its file"),
    "a folder": ("/", "/ cannot be read: Is a directory"),
    "no file's name": ("a\0b", "cannot be read: ValueError: .*embedded null"),
}


@pytest.fixture
def client() -> Iterator[FakeClient]:
    with FakeClient(max_image_bytes=LIMIT) as client:
        yield client


def test_what_is_no_picture_is_refused_with_what_is(client: FakeClient) -> None:
    for form, says in REFUSED.values():
        with pytest.raises(InvalidImage, match=says):
            client.img2txt(form)


def test_a_closed_file_and_an_unreadable_image_are_refused(
    client: FakeClient, tmp_path: Path
) -> None:
    closed = io.BytesIO(PNG)
    closed.close()
    (tmp_path / "cut.png").write_bytes(PNG[:60])
    with Image.open(tmp_path / "cut.png") as cut:
        for form, says in ((closed, "file cannot be read: I/O"), (cut, "cannot be written as PNG")):
            with pytest.raises(InvalidImage, match=says):
                client.img2txt(form)


def test_a_packed_file_that_is_damaged_is_refused(client: FakeClient) -> None:
    packed = gzip.compress(PNG)
    with gzip.open(io.BytesIO(packed)) as whole:
        client.img2txt(whole)
    for damaged in (packed[:30], packed[:20] + b"\xff" * 40):
        with (
            gzip.open(io.BytesIO(damaged)) as file,
            pytest.raises(
                InvalidImage, match=r"file cannot be read: (Compressed file ended|Error)"
            ),
        ):
            client.img2txt(file)


def test_no_form_passes_the_limit(client: FakeClient, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    large = encoded(Image.fromarray(noise), "PNG")
    (tmp_path / "large.png").write_bytes(large)
    forms = (large, tmp_path / "large.png", io.BytesIO(large), noise, Image.fromarray(noise))
    for form in forms:
        with pytest.raises(ImageTooLarge, match="100000"):
            client.img2txt(form)
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(ImageTooLarge, match="more than the 100000"),
    ):
        client.img2txt(endless)


def test_a_stored_picture_is_taken_as_it_lies_there(client: FakeClient) -> None:
    [drawn] = client.txt2img("a circle").result().images
    job = client.img2txt(drawn)
    assert client.record(job).params["image"]["key"] == drawn.key
    assert job.result().captions


def test_a_batch_takes_the_same_and_fails_alone_what_is_none(
    client: FakeClient, path: Path
) -> None:
    pictures: list[Any] = [PNG, path, io.BytesIO(PNG), red(), PIXELS, 5, BlobRef(key="no/such")]
    codes = {r.index: r.failure.code if r.failure else None for r in client.map_img2txt(pictures)}
    assert codes == dict.fromkeys(range(5)) | {5: "invalid_image", 6: "blob_not_found"}


def test_a_single_picture_is_no_batch(client: FakeClient, path: Path) -> None:
    for one in (PNG, str(path), path, io.BytesIO(PNG), red(), PIXELS, BlobRef(key="a")):
        with pytest.raises(CrossmodalError, match=r"images is .*give a list"):
            client.map_img2txt(one)  # type: ignore[arg-type]
