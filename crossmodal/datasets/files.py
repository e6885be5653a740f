"""Data sets of picture files with captions: the common part of COCO and Flickr30k."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from crossmodal.datasets.base import TRAIN, Caption, Example, LookCounts
from crossmodal.datasets.pictures import Named, Pictures
from crossmodal.errors import InvalidData, InvalidImage, described
from crossmodal.files import read_regular
from crossmodal.text.tokens import tokenize
from crossmodal.vision.decode import decode

MAX_PIXELS = 200_000_000  # far above the photographs of these data sets
MAX_PICTURE, MAX_TEXT = 200_000_000, 4_000_000_000  # max bytes of a file
HELD_BACK = 20  # without given splits, one picture in 20 is held out for evaluation


@dataclass(frozen=True)
class Entry:
    """A picture's file and its captions."""

    path: Path
    captions: tuple[str, ...]


class CaptionedFiles:
    """A `Dataset` over entries; captions are kept in memory, pictures on disk."""

    looks: LookCounts | None = None
    things: tuple[str, ...] = ()

    def __init__(
        self, kind: str, folder: Path, splits: dict[str, list[Entry]], problems: Sequence[str] = ()
    ) -> None:
        self.name = f"{kind}:{folder.absolute()}"
        if not splits.get(TRAIN):
            found = f"; {summary(problems)}" if problems else ""
            raise InvalidData(f"{self.name} has no picture with a caption to train on{found}")
        self.judged = tuple(s for s, entries in splits.items() if s != TRAIN and entries)
        self.problems = tuple(dict.fromkeys(map(_writable, problems)))
        self._splits = splits

    def roughened(self) -> Self:
        return self

    @cached_property
    def digest(self) -> str:
        """The digest of captions, file names and sizes in order, independent of the folder."""
        found = hashlib.sha256()
        for split, entries in self._splits.items():
            for entry in entries:
                name = unicodedata.normalize("NFC", entry.path.name)
                line = [split, name, _size(entry.path), *entry.captions]
                found.update(json.dumps(line).encode())
        return found.hexdigest()

    def size(self, split: str) -> int | None:
        return len(self.entries(split))

    def entries(self, split: str) -> list[Entry]:
        """Return all pictures of `split` with their captions."""
        return self._splits[split]

    def example(self, split: str, seed: int, index: int) -> Example:
        entries = self.entries(split)
        epoch, place = divmod(index, len(entries))
        entry = entries[_shuffled(len(entries), seed, epoch)[place]]
        return Example(_read(entry.path), tuple(Caption(text) for text in entry.captions))

    def texts(self, split: str, seed: int) -> Iterator[str]:
        for entry in self.entries(split):
            yield from entry.captions


@lru_cache(maxsize=2)
def _shuffled(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(length)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as e:
        raise InvalidData(f"{path} cannot be read: {described(e)}") from e


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return decode(read_regular(path, MAX_PICTURE), MAX_PIXELS)
    except (InvalidImage, OSError) as e:
        raise InvalidData(f"{path.name}: {e}") from e


def gathered(
    root: Path, named: Sequence[Named], folders: Iterable[str]
) -> tuple[dict[str, list[Entry]], list[str]]:
    """Return the entries of each split found in `folders` of `root`, and the problems of the
    other pictures."""
    said = {one: cleaned(one.captions) for one in named}
    problems = [f"{one.name}: it has no caption" for one, texts in said.items() if not texts]
    captioned = [one for one, texts in said.items() if texts]
    found, missing = Pictures(root, folders).find(captioned)
    splits: dict[str, list[Entry]] = {TRAIN: []}
    for one in captioned:
        if one in found:
            entry = Entry(found[one], tuple(said[one]))
            splits.setdefault(one.split, []).append(entry)
    return splits, problems + missing


def cleaned(texts: Iterable[str]) -> list[str]:
    """Normalize spaces in captions; drop those without words and duplicates."""
    kept: dict[tuple[str, ...], str] = {}
    for text in texts:
        text = _writable(text)
        tokens = tuple(tokenize(text))
        if tokens:
            kept.setdefault(tokens, re.sub(r"\s+", " ", text).strip())
    return list(kept.values())


def _writable(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8."""
    return text.encode(errors="replace").decode()


def with_held_back(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Split into `train` and `val`, deterministically, by the digests of the file names."""
    ordered = sorted(entries, key=lambda e: hashlib.sha256(os.fsencode(e.path.name)).digest())
    cut = max(1, len(ordered) // HELD_BACK) if len(ordered) > 1 else 0
    return {TRAIN: ordered[cut:], "val": ordered[:cut]}


def summary(problems: Sequence[str], shown: int = 5) -> str:
    """Return a message with the number of problems and the first `shown` of them."""
    more = f" … and {len(problems) - shown} more" if len(problems) > shown else ""
    return f"{len(problems)} skipped: " + "; ".join(problems[:shown]) + more


def read_text(path: Path) -> str:
    """Read a file as text; invalid UTF-8 becomes replacement characters."""
    try:
        return read_regular(path, MAX_TEXT).decode("utf-8-sig", errors="replace")
    except OSError as e:
        raise InvalidData(f"{path} cannot be read: {described(e)}") from e
