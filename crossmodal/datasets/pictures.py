"""Match picture names in a data set to files: the right file, or none.

Names may lack folders, or differ from files in case, ending, separator or Unicode form. A name
gets its best-ranked file (`_Rank`) if that is unique and no other name ranks it as well or
better. Other names are reported as problems, never guessed.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmodal.errors import InvalidData, described

ENDINGS = {
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".jxl",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
COCOS = re.compile(r"\d{12}")  # COCO's names: ids that are unique over all its splits
SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".tiff": ".tif"}
# The name's folders match the file's, are fewer than those, or are missing in the file's path.
NAMED, BELOW, FLAT = range(3)

Parts = tuple[str, ...]
# NAMED, BELOW or FLAT; index of the file's folder in the picture's `folders`; likeness.
_Rank = tuple[int, int, int]


@dataclass(frozen=True)
class Named:
    """A picture as a data set lists it: split, name and captions.

    `folders` are its expected folders inside the data set's, likeliest first.
    """

    split: str
    name: str
    captions: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class _Name:
    """A path inside the data set's folder, in parts; `key` is normalized for comparison."""

    parts: Parts
    key: Parts
    ending: str

    @staticmethod
    def of(path: str) -> "_Name":
        text = unicodedata.normalize("NFC", path).replace("\\", "/").strip()
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        folded = tuple(unicodedata.normalize("NFC", part.casefold()) for part in parts) or ("",)
        stem, dot, tail = folded[-1].rpartition(".")
        ending = dot + tail if stem and dot + tail in ENDINGS else ""
        key = (*folded[:-1], folded[-1].removesuffix(ending))
        return _Name(parts, key, SAME.get(ending, ending))


class Pictures:
    """The files in `folders` of a data set, to match names to."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.root = root
        self.folders = {name: _Name.of(name).key for name in folders if (root / name).is_dir()}
        try:
            self._files = {
                path: _Name.of(os.path.relpath(path, root))
                for name in self.folders
                for path in _files(root / name)
            }
        except OSError as e:
            raise InvalidData(f"{e.filename} cannot be read: {described(e)}") from e
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path, file in self._files.items():
            self._by_stem[file.key[-1]].append(path)

    def find(self, named: Sequence[Named]) -> tuple[dict[Named, Path], list[str]]:
        """Return the files of `named`, and the problems of those without a file."""
        names = {one: _Name.of(one.name) for one in named}
        stems = Counter(name.key[-1] for name in names.values())
        ranked: dict[_Rank, list[tuple[Named, Path]]] = defaultdict(list)
        for one, name in names.items():
            paths = self._by_stem.get(name.key[-1], ())
            alone = stems[name.key[-1]] == len(paths) == 1
            for path in paths:
                rank = self._rank(one, name, path)
                if rank and (rank[0] != FLAT or alone):
                    ranked[rank].append((one, path))
        found, doubtful = _matched(ranked)
        return found, [self._problem(one, doubtful.get(one)) for one in names if one not in found]

    def _rank(self, one: Named, name: _Name, path: Path) -> _Rank | None:
        file = self._files[path]
        if name.ending and file.ending and name.ending != file.ending:
            return None
        own = [self.folders[folder] for folder in one.folders if folder in self.folders]
        inside = [f for f in self.folders.values() if file.key[: len(f)] == f]
        innermost = max(inside, key=len)
        place = own.index(innermost) if innermost in own else len(own)
        rests = [file.key[len(f) :] for f in inside if f in own]
        fits = any(_ends(name.key, rest) for rest in rests)
        likeness = _likeness(name, file)
        if _ends(name.key, file.key) or (fits and _ends(file.key, name.key)):
            return NAMED, place, likeness
        if _ends(file.key, name.key) and (innermost in own or _is_of(innermost, name)):
            return BELOW, place, likeness
        return (FLAT, place, likeness) if fits else None

    def _problem(self, one: Named, options: list[Path] | None) -> str:
        if options:
            known = " and ".join(sorted(os.path.relpath(path, self.root) for path in options[:2]))
            why = f"{known} match" if len(options) > 1 else f"{known} also matches another name"
            return f"{one.name}: its file is ambiguous: {why}"
        looked = [folder for folder in one.folders if folder in self.folders]
        others = sorted(self.folders.keys() - set(looked))
        where = ", ".join(looked + others)
        if not where:
            wanted = " or ".join(one.folders)
            return f"{one.name}: the picture is missing: {self.root} has no {wanted}"
        return f"{one.name}: the picture is missing from {where}"


def _matched(
    ranked: dict[_Rank, list[tuple[Named, Path]]],
) -> tuple[dict[Named, Path], dict[Named, list[Path]]]:
    """Match names to files, best rank first; also return the candidates of ambiguous names."""
    found: dict[Named, Path] = {}
    doubtful: dict[Named, list[Path]] = {}
    taken: set[Path] = set()
    for rank in sorted(ranked):
        options: dict[Named, list[Path]] = defaultdict(list)
        for one, path in ranked[rank]:
            if one not in found and one not in doubtful and path not in taken:
                options[one].append(path)
        wanted = Counter(path for paths in options.values() for path in paths)
        # Two entries may share an exactly named file: one picture in two splits.
        sure = rank[0] == NAMED and rank[2] == 0
        for one, paths in options.items():
            if len(paths) == 1 and (sure or wanted[paths[0]] == 1):
                found[one] = paths[0]
            else:
                doubtful[one] = paths
        taken.update(path for paths in options.values() for path in paths)
    return found, doubtful


def _likeness(name: _Name, file: _Name) -> int:
    """Return 0 if the paths match as written, 1 if their file endings are equal, else 2."""
    length = min(len(name.parts), len(file.parts))
    if name.parts[-length:] == file.parts[-length:]:
        return 0
    return 1 if name.ending == file.ending else 2


def _is_of(folder: Parts, name: _Name) -> bool:
    """Return whether a picture may be in another split's folder: its name must be unique."""
    return folder[-1] in name.key[-1] or bool(COCOS.fullmatch(name.key[-1]))


def _ends(long: Sequence[Hashable], short: Sequence[Hashable]) -> bool:
    return len(short) <= len(long) and long[len(long) - len(short) :] == short


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder`, following links, each folder once."""
    seen, waiting = set(), [folder]
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_file():  # False for a dangling link
                    yield Path(entry.path)
                elif entry.is_dir():
                    waiting.append(Path(entry.path))
