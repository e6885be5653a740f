"""Pictures in a folder with captions beside them: what COCO and Flickr30k have in common."""

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

MAX_PIXELS = 200_000_000  # far above any photograph of these data sets
MAX_PICTURE, MAX_TEXT = 200_000_000, 4_000_000_000  # bytes of a file
HELD_BACK = 20  # without a split of its own, one picture in so many is kept for judging


@dataclass(frozen=True)
class Entry:
    """A picture's file and what is said of it."""

    path: Path
    captions: tuple[str, ...]


class CaptionedFiles:
    """A `Dataset` over entries; captions stay in memory, pictures on the disk."""

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
        """Of captions, file names and sizes, in their order: wherever the folder lies."""
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
        """Every picture of `split` with its captions."""
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
    """The pictures of each split that are found in `folders` of `root`, and what is wrong with
    the others."""
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
    """Captions with single spaces, without those that say nothing or repeat another."""
    kept: dict[tuple[str, ...], str] = {}
    for text in texts:
        text = _writable(text)
        tokens = tuple(tokenize(text))
        if tokens:
            kept.setdefault(tokens, re.sub(r"\s+", " ", text).strip())
    return list(kept.values())


def _writable(text: str) -> str:
    """A text without halves of surrogate pairs, which no file can hold."""
    return text.encode(errors="replace").decode()


def with_held_back(entries: list[Entry]) -> dict[str, list[Entry]]:
    """`train` and `val`, told apart by the digests of the file names: always the same."""
    ordered = sorted(entries, key=lambda e: hashlib.sha256(os.fsencode(e.path.name)).digest())
    cut = max(1, len(ordered) // HELD_BACK) if len(ordered) > 1 else 0
    return {TRAIN: ordered[cut:], "val": ordered[:cut]}


def summary(problems: Sequence[str], shown: int = 5) -> str:
    """How many things are skipped, and the first few by name."""
    more = f" … and {len(problems) - shown} more" if len(problems) > shown else ""
    return f"{len(problems)} skipped: " + "; ".join(problems[:shown]) + more


def read_text(path: Path) -> str:
    """A file as text; bytes that are no UTF-8 become replacement characters."""
    try:
        return read_regular(path, MAX_TEXT).decode("utf-8-sig", errors="replace")
    except OSError as e:
        raise InvalidData(f"{path} cannot be read: {described(e)}") from e
