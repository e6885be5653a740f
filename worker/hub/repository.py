"""A hub's description of a repository at one commit: its files, their sizes and digests."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossmodal.errors import InvalidModel, quoted

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class HubFile:
    """A file; the hub gives its SHA-256 if it is in Git LFS, and its Git blob id otherwise."""

    name: str
    size: int
    sha256: str | None = None
    git_id: str | None = None

    @property
    def folder(self) -> str:
        """The folder that contains it; empty at the top."""
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        """Its name in that folder."""
        return self.name.rpartition("/")[2]

    @property
    def mark(self) -> str:
        """A short digest that tells it from the file of this name at another commit."""
        return (self.sha256 or self.git_id or "")[:16]


@dataclass(frozen=True)
class Repository:
    """All files of a repository at a commit. Raises `InvalidModel` for names outside the folder."""

    name: str
    commit: str
    files: tuple[HubFile, ...]

    def __post_init__(self) -> None:
        for file in self.files:
            is_inside = not {"..", ".", ""} & set(file.name.split("/")) and "\\" not in file.name
            if not is_inside or not file.name.isprintable():
                raise InvalidModel(
                    f"{self.name} has a file with an unsafe name, {quoted(file.name)}: nothing is "
                    "fetched"
                )

    @cached_property
    def by_name(self) -> dict[str, HubFile]:
        return {file.name: file for file in self.files}


@dataclass(frozen=True)
class Digests:
    """The size and digests of a local file."""

    size: int
    sha256: str
    git_id: str

    def are_of(self, file: HubFile) -> bool:
        """Return whether they match the hub's."""
        if self.size != file.size:
            return False
        return self.sha256 == file.sha256 if file.sha256 else self.git_id == file.git_id


def digests(path: Path) -> Digests:
    """Return size and digests of a file; Git hashes "blob SIZE", a zero byte and the content."""
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            git.update(chunk)
    return Digests(size, sha256.hexdigest(), git.hexdigest())
