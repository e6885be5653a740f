"""Read files of word vectors: detect the format, and yield the rows.

    word2vec, binary   "3000000 300\n", then per word b"word " and float32 numbers
    word2vec, text     "71291 200\n", then per word "word 0.1 -0.2 …\n"; fastText's .vec too
    GloVe              the same without the first line

Each may be gzipped. Unusable rows are skipped and counted; a file is refused if most rows are
unusable. Other formats are refused by name.
"""

import gzip
import io
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import InvalidData, described
from crossmodal.files import open_regular

COMMON = 500_000  # max words to read of a large file; the rest are very rare
HEAD = 1 << 18  # bytes to detect the format by
LOOKED_AT = 5  # rows of the head to check
MAX_LINE = 1 << 20  # bytes of a line of text
MAX_WORD = 4_096
MAX_NUMBERS = 16_384  # per word

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
_COUNTS = re.compile(rb"[ \t]*(\d+)[ \t]+(\d+)[ \t\r]*\n")
# Other formats that users may pass, by their first bytes.
STRANGERS = {
    b"\xba\x16\x4f\x2f": "a fastText model: use its vectors in text form, a .vec file",
    b"\x80": "a pickle, such as a saved gensim model: save its vectors with save_word2vec_format",
    b"PK\x03\x04": "a zip archive: unpack it, and give a file from it",
    b"\x93NUMPY": "a NumPy array, which has no words",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database, such as Magnitude's",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "text in UTF-16: save it as UTF-8",
    b"<": "an HTML or XML file",
    b"{": "JSON",
}
READ = "word2vec's binary or text format, fastText's .vec and GloVe's text are read, also with gzip"

Row = tuple[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Found:
    """Words with their vectors, float32 (V, D), in the file's order, and the skipped rows."""

    words: list[str]
    matrix: NDArray[np.float32]
    problems: tuple[str, ...] = ()


def read_vectors(path: Path, wanted: Collection[str] | None = None) -> Found:
    """Read the vectors of the `wanted` words, or of all, from `path`. Raises `InvalidData`."""
    with _opened(path) as file:
        rows = _Rows(file, wanted)
        words, vectors = [], []
        for word, vector in rows:
            words.append(word)
            vectors.append(vector)
    bad = sum(rows.skipped.values())
    if not rows.count or 2 * bad > rows.count:
        why = f" ({'; '.join(rows.problems())})" if bad else ""
        raise InvalidData(f"{path} is not a file of word vectors{why}: {READ}")
    matrix = np.array(vectors, np.float32).reshape(len(words), rows.dim)
    return Found(words, matrix, tuple(rows.problems()))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as raw:
            packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            if not packed:
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, io.BufferedReader(unpacked))
    except (OSError, EOFError, zlib.error) as e:
        raise InvalidData(f"{path} cannot be read: {described(e)}") from e
    except _Refused as e:
        raise InvalidData(f"{path} {e}: {READ}") from e


class _Refused(Exception):
    """The reason to refuse a file, a clause to follow its name."""


class _Rows:
    """The rows of a file, each word once, and the counts of skipped rows."""

    def __init__(self, file: BinaryIO, wanted: Collection[str] | None) -> None:
        self._file = file
        self._wanted = wanted
        self.skipped: Counter[str] = Counter()
        self.count = 0
        head = file.read(HEAD)
        self._told, self.dim, self._is_text = _format(head.removeprefix(BOM))
        file.seek(len(BOM) if head.startswith(BOM) else 0)

    def problems(self) -> list[str]:
        """Return messages about skipped and missing rows."""
        found = [f"{count} {_row(count)} skipped: {why}" for why, count in self.skipped.items()]
        if self.count < min(self._told or 0, COMMON):
            found.append(
                f"it ends after {self.count} of the {self._told} words stated in its header"
            )
        return found

    def __iter__(self) -> Iterator[Row]:
        if self._told is not None:
            self._file.readline(MAX_LINE)
        seen = set()
        for raw, numbers in self._of_text() if self._is_text else self._of_bytes():
            self.count += 1
            word = self._word(raw)
            if word is None or word in seen or not (self._wanted is None or word in self._wanted):
                continue
            vector = self._vector(numbers)
            if vector is not None:
                seen.add(word)
                yield word, vector

    def _word(self, raw: bytes) -> str | None:
        try:
            return unicodedata.normalize("NFC", raw.decode())
        except UnicodeDecodeError:
            self.skipped["a word that is not UTF-8"] += 1
            return None

    def _vector(self, numbers: bytes | list[bytes]) -> NDArray[np.float32] | None:
        try:
            if isinstance(numbers, bytes):
                vector = np.frombuffer(numbers, "<f4")
            else:
                with np.errstate(over="ignore"):  # overflow gives inf, which is refused
                    vector = np.array([float(number) for number in numbers]).astype(np.float32)
            if len(vector) == self.dim and np.isfinite(vector).all():
                return vector
        except ValueError:
            pass
        self.skipped[f"not {self.dim} finite numbers"] += 1
        return None

    def _of_text(self) -> Iterator[tuple[bytes, list[bytes]]]:
        while self.count < COMMON and (line := self._file.readline(MAX_LINE)):
            fields = line.split()
            if fields:  # a word may hold spaces: the numbers are counted from the end
                at = max(1, len(fields) - self.dim)
                yield b" ".join(fields[:at]), fields[at:]

    def _of_bytes(self) -> Iterator[tuple[bytes, bytes]]:
        told = self._told or 0
        size = 4 * self.dim
        while self.count < min(told, COMMON):
            word = self._bytes_of_word()
            numbers = self._file.read(size)
            if len(numbers) < size:
                raise _Refused(f"ends after {self.count} of the {told} words stated in its header")
            yield word, numbers

    def _bytes_of_word(self) -> bytes:
        word = bytearray()
        while (byte := self._file.read(1)) not in (b" ", b""):
            word += byte
            if len(word) > MAX_WORD:
                raise _Refused(f"has no word where number {self.count + 1} should begin")
        return bytes(word).lstrip(b"\n")


def _format(head: bytes) -> tuple[int | None, int, bool]:
    """Return (words in the header or None, numbers per word, whether the file is text)."""
    for magic, what in STRANGERS.items():
        may_be_a_word = magic.isascii() and magic.decode().isprintable()
        if head.startswith(magic) and not (may_be_a_word and _numbers_of(head)):
            raise _Refused(f"is {what}")
    counts = _COUNTS.match(head)
    dim = _numbers_of(head[counts.end() :], least=1) if counts else _numbers_of(head)
    if counts is None:
        if not dim:
            raise _Refused("is not a file of word vectors, by its first bytes")
        return None, dim, True
    told, said = int(counts[1]), int(counts[2])
    if not 0 < said <= MAX_NUMBERS:
        raise _Refused(f"has a header with {said} numbers per word, not 1 to {MAX_NUMBERS}")
    if dim and dim != said:
        raise _Refused(f"has a header with {said} numbers per word, but its words have {dim}")
    return told, said, bool(dim)


def _numbers_of(head: bytes, least: int = 2) -> int:
    """Return how many numbers follow a word in the first rows of text; 0 if it is not text."""
    lines = head.split(b"\n")
    whole = lines[:-1] if len(lines) > 1 and lines[-1] else lines
    rows = [line.split() for line in whole[: LOOKED_AT + 1] if line.strip()]
    found = Counter(count for row in rows if (count := _numbers(row)) >= least)
    return found.most_common(1)[0][0] if found else 0


def _numbers(row: list[bytes]) -> int:
    """Return the count of numbers at the end of a row that starts with a word."""
    count = 0
    for field in reversed(row[1:]):
        try:
            float(field)
        except ValueError:
            break
        count += 1
    return count


def _row(count: int) -> str:
    return "row is" if count == 1 else "rows are"
