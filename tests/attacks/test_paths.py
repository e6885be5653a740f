"""A path is opened only if it is a regular file, and read only up to a limit."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from crossmodal.datasets.files import read_text
from crossmodal.errors import CrossmodalError, InvalidBundle, InvalidImage
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import ItemResult
from crossmodal.kinds.task import Task
from crossmodal.networks.bundle import open_bundle
from crossmodal.networks.weights import load_captioner, load_drawing
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.text.vector_files import read_vectors
from producer.batches.jsonl import BatchFile
from producer.mcp.folders import read_picture
from producer.pictures.files import bytes_of
from tests.at_once import at_once

MAX_BYTES = 100_000
CPU = torch.device("cpu")
KINDS = ("a device", "a pipe", "a socket", "a folder")


@pytest.fixture
def special(tmp_path: Path) -> Callable[[str], Path]:
    """Make each kind of file that is not regular; return their paths by kind."""
    os.mkfifo(tmp_path / "a pipe")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a device").symlink_to("/dev/zero")
    before = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("a socket")
    os.chdir(before)
    return lambda kind: tmp_path / kind


def batch(path: Path) -> BatchFile:
    return BatchFile(path, Task("img2txt"), "a-batch", MAX_BYTES, KnownModels)


@at_once("kind", KINDS)
def test_a_picture_is_a_regular_file(special: Callable[[str], Path], kind: str) -> None:
    with pytest.raises(InvalidImage):
        bytes_of(special(kind), MAX_BYTES)
    with pytest.raises(CrossmodalError):
        read_picture(kind, [special(kind).parent], MAX_BYTES)


@at_once("kind", KINDS)
def test_a_picture_that_a_line_names_is_a_regular_file(
    special: Callable[[str], Path], kind: str
) -> None:
    requests = special(kind).parent / "requests.jsonl"
    requests.write_text(json.dumps({"body": {"image": {"path": kind}}}) + "\n")
    [item] = batch(requests).items()
    assert isinstance(item, ItemResult)
    assert item.failure is not None
    assert item.failure.code == "invalid_image"


@at_once("kind", KINDS)
def test_a_file_of_requests_of_captions_and_of_vectors_is_a_regular_file(
    special: Callable[[str], Path], kind: str
) -> None:
    for read in (batch, read_text, read_vectors):
        with pytest.raises(CrossmodalError, match=r"cannot be read"):
            read(special(kind))


def test_a_line_without_an_end_fails_alone_and_takes_no_memory(tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    good = json.dumps({"body": {"image": {"key": "inputs/a"}}}).encode()
    with requests.open("wb") as file:
        file.write(good + b"\n")
        file.truncate(200_000_000)  # of zeros, which take no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + good + b"\n")
    found = batch(requests)
    assert found.total == 3
    lines = list(found._lines())
    assert max(map(len, lines)) < 2_000_000
    failures = [getattr(item, "failure", None) for item in found.items()]
    assert [failure and failure.code for failure in failures] == [None, "invalid_params", None]


# Untrusted bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_BUNDLE, tmp_path / "bundle"))


def reseal(bundle: Path, name: str, text: str) -> None:
    """Replace the text of a bundle's file, and update its digest."""
    (bundle / name).write_text(text)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][name] = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def load(bundle: Path) -> None:
    opened = open_bundle(bundle)
    load_drawing(opened, CPU)
    load_captioner(opened, CPU)


def test_json_of_a_hundred_thousand_levels_is_an_invalid_bundle(bundle: Path) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    for name in ("txt2img.json", "img2txt.json"):
        before = (bundle / name).read_text()
        reseal(bundle, name, deep)
        with pytest.raises(InvalidBundle):
            load(bundle)
        reseal(bundle, name, before)
    (bundle / "bundle.json").write_text(deep)
    with pytest.raises(InvalidBundle):
        load(bundle)


def changed(name: str, place: str, value: int) -> str:
    """Return a config of the shipped bundle with another size in one place."""
    config = json.loads((SHIPPED_BUNDLE / name).read_text())
    part = config["text"] if place.startswith("text.") else config
    part[place.removeprefix("text.")] = value
    return json.dumps(config)


@pytest.mark.parametrize("size", [1_000_000_000, -1, 0, 5_000])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(
            ("txt2img.json", place)
            for place in (
                "text.word_dim",
                "text.width",
                "text.heads",
                "text.layers",
                "text.max_words",
                "side",
                "objects",
                "shapes",
                "colors",
                "template",
                "shade_dim",
            )
        ),
        *(("img2txt.json", place) for place in ("side", "depth", "stages", "width", "embedding")),
    ],
)
def test_a_size_that_no_model_has_is_an_invalid_bundle(
    tmp_path: Path, name: str, place: str, size: int
) -> None:
    for file in SHIPPED_BUNDLE.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for written in (name, "bundle.json"):
        (tmp_path / written).unlink()
    shutil.copy(SHIPPED_BUNDLE / "bundle.json", tmp_path)
    reseal(tmp_path, name, changed(name, place, size))
    with pytest.raises(InvalidBundle):
        load(tmp_path)
