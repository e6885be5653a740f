"""Which file a data set means by a picture's name: the right one, or none.

Names come with folders or without, with another case, ending, separator or Unicode form than
the files. The likeliest file is taken, in the order of `_Rank`, if there is only one, and if no
other name has a better claim to it: what is left over is named, never guessed.
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
COCOS = re.compile(r"\d{12}")  # how COCO names pictures by numbers that no two of them share
SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".tiff": ".tif"}
NAMED, BELOW, FLAT = range(3)  # a folder in a name fits, is more than it says, or is not there

Parts = tuple[str, ...]
_Rank = tuple[int, int, int]  # NAMED, BELOW or FLAT; the folder's place among its own; likeness


@dataclass(frozen=True)
class Named:
    """What a data set says of one picture: its split, name and captions.

    `folders` are those, inside the data set's, in which it should lie, the likeliest first.
    """

    split: str
    name: str
    captions: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class _Name:
    """A path inside the data set's folder, in parts that are told apart by `key`."""

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
    """The files in `folders` of a data set, and which of them each name means."""

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
        """The files that `named` mean, and what is wrong with those that have none."""
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
            why = f"{known} could be it" if len(options) > 1 else f"{known} could be another's too"
            return f"{one.name}: which picture it is is not clear: {why}"
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
    """Files for names, from the surest rank on, and between which files others waver."""
    found: dict[Named, Path] = {}
    doubtful: dict[Named, list[Path]] = {}
    taken: set[Path] = set()
    for rank in sorted(ranked):
        options: dict[Named, list[Path]] = defaultdict(list)
        for one, path in ranked[rank]:
            if one not in found and one not in doubtful and path not in taken:
                options[one].append(path)
        wanted = Counter(path for paths in options.values() for path in paths)
        sure = rank[0] == NAMED and rank[2] == 0  # two may name a file so: it is of both splits
        for one, paths in options.items():
            if len(paths) == 1 and (sure or wanted[paths[0]] == 1):
                found[one] = paths[0]
            else:
                doubtful[one] = paths
        taken.update(path for paths in options.values() for path in paths)
    return found, doubtful


def _likeness(name: _Name, file: _Name) -> int:
    """0 where the shorter of both ends the other as it is written; more, the less it does."""
    length = min(len(name.parts), len(file.parts))
    if name.parts[-length:] == file.parts[-length:]:
        return 0
    return 1 if name.ending == file.ending else 2


def _is_of(folder: Parts, name: _Name) -> bool:
    """Whether a picture may lie in a folder of another split: its name must be one of a kind."""
    return folder[-1] in name.key[-1] or bool(COCOS.fullmatch(name.key[-1]))


def _ends(long: Sequence[Hashable], short: Sequence[Hashable]) -> bool:
    return len(short) <= len(long) and long[len(long) - len(short) :] == short


def _files(folder: Path) -> Iterator[Path]:
    """All files below `folder`, through links too, each folder once."""
    seen, waiting = set(), [folder]
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_file():  # a link that leads nowhere is none
                    yield Path(entry.path)
                elif entry.is_dir():
                    waiting.append(Path(entry.path))
