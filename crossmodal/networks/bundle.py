"""A bundle: a folder of all files needed to serve, with their digests.

    bundle.json            manifest: format, name, digests, quality, how it was trained
    words.bin              word vectors, word2vec's binary format
    txt2img.json           DrawingConfig       txt2img.safetensors   its weights
    img2txt.json           CaptionerConfig     img2txt.safetensors   its weights
    bert/                  BERT and its tokenizer, if txt2img reads its vectors

The version of a bundle is the digest of its digests: equal versions, equal bytes.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossmodal.errors import BundleNotFound, InvalidBundle, described
from crossmodal.files import read_regular, write_whole
from crossmodal.invalid import words

MANIFEST = "bundle.json"
FORMAT = 1
MAX_JSON = 16_000_000  # bytes of a manifest or a config
WORDS = "words.bin"
BERT = "bert"
DRAWING = "txt2img.json"
_NAME = re.compile(rf"({BERT}/)?\w[\w.-]{{0,99}}")
DATA_FILES = (WORDS, "txt2img.json", "txt2img.safetensors", "img2txt.json", "img2txt.safetensors")


class Manifest(BaseModel):
    """The contents of `bundle.json`."""

    model_config = ConfigDict(extra="ignore")

    format: int = Field(ge=1, le=FORMAT)
    name: str = Field(min_length=1)
    dataset: str = "scenes"
    files: dict[str, str]
    training: dict[str, Any] = {}
    quality: dict[str, Any] = {}


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, whose files match the digests of its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        digests = json.dumps(self.manifest.files, sort_keys=True)
        return hashlib.sha256(digests.encode()).hexdigest()[:16]

    def path(self, name: str) -> Path:
        return self.folder / name

    def config(self, name: str) -> dict[str, Any]:
        """Read one of the bundle's JSON files. Raises `InvalidBundle`."""
        return read_json(self.folder / name)


def open_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle. Raises `BundleNotFound` or `InvalidBundle`, naming the file."""
    if not (folder / MANIFEST).is_file():
        raise BundleNotFound(
            f"there is no bundle in {folder}: it has no {MANIFEST}. "
            "Set CROSSMODAL_BUNDLE to a folder made by `crossmodal train`"
        )
    raw = read_json(folder / MANIFEST)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as e:
        raise InvalidBundle(f"{folder / MANIFEST}: {words(e.errors()[0])}") from e
    for name in {*DATA_FILES, *manifest.files}:
        _verify(folder, name, manifest.files.get(name))
    return Bundle(folder, manifest)


def seal(
    folder: Path, name: str, dataset: str, training: dict[str, Any], quality: dict[str, Any]
) -> Bundle:
    """Write the manifest of the files in `folder`, and open it as a bundle."""
    reads_bert = read_json(folder / DRAWING).get("text", {}).get("source") == BERT
    extra = bert_files(folder) if reads_bert else []
    files = {n: _digest(folder / n) for n in (*DATA_FILES, *extra) if (folder / n).is_file()}
    manifest = Manifest(
        format=FORMAT, name=name, dataset=dataset, files=files, training=training, quality=quality
    )
    write_whole(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return open_bundle(folder)


def bert_files(folder: Path) -> list[str]:
    """Return the names of BERT's files in a bundle, as the manifest names them."""
    return sorted(f"{BERT}/{file.name}" for file in (folder / BERT).glob("*") if file.is_file())


def _verify(folder: Path, name: str, expected: str | None) -> None:
    path = folder / name
    if expected is None:
        raise InvalidBundle(f"{folder / MANIFEST} names no digest for {name}")
    if not _NAME.fullmatch(name):
        raise InvalidBundle(
            f"{folder / MANIFEST} names {name[:80]!r}, which is not a file of a bundle"
        )
    if not path.is_file():
        raise InvalidBundle(f"{path} is missing from the bundle: copy the folder again")
    if (found := _digest(path)) != expected:
        raise InvalidBundle(
            f"{path} has the digest {found[:16]}…, its manifest says {expected[:16]}…: "
            "the file was changed or damaged; copy the bundle again"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a bundle. Raises `InvalidBundle`."""
    try:
        value = json.loads(read_regular(path, MAX_JSON))
    except (OSError, ValueError, RecursionError) as e:
        raise InvalidBundle(f"{path} cannot be read as JSON: {described(e)}") from e
    if not isinstance(value, dict):
        raise InvalidBundle(f"{path} holds {type(value).__name__}, not an object")
    return value
