"""Word vectors as people have them: every format that is read, and what is said of the others."""

import gzip
import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from numpy.typing import NDArray

from crossmodal.errors import InvalidBundle, InvalidData
from crossmodal.text.coverage import Coverage
from crossmodal.text.vector_files import read_vectors
from crossmodal.text.word_vectors import WordVectors, load_vectors, vectors_for
from tests.at_once import at_once

Vectors = Mapping[str, Sequence[float]]
WORDS: Vectors = {"the": [0.5, -1.5, 2.0], "red": [1e-3, 4.0, 0.25], "don't": [1.0, 2.0, 3.0]}


def text(vectors: Vectors, header: bool = True, end: str = "\n") -> bytes:
    rows = [" ".join([word, *map(str, numbers)]) for word, numbers in vectors.items()]
    return end.join([*([f"{len(vectors)} 3"] if header else []), *rows, ""]).encode()


def binary(vectors: Mapping[bytes, Sequence[float]], told: int | None = None) -> bytes:
    rows = [w + b" " + np.array(v, "<f4").tobytes() + b"\n" for w, v in vectors.items()]
    return f"{len(vectors) if told is None else told} 3\n".encode() + b"".join(rows)


def encoded(vectors: Vectors) -> dict[bytes, Sequence[float]]:
    return {word.encode(): numbers for word, numbers in vectors.items()}


FORMATS: dict[str, bytes] = {
    "word2vec, binary": binary(encoded(WORDS)),
    "word2vec, text": text(WORDS),
    "fastText": text(WORDS).replace(b"\n", b" \n"),  # its rows end with a space
    "GloVe": text(WORDS, header=False),
    "of Windows": text(WORDS, end="\r\n"),
    "with a byte order mark": b"\xef\xbb\xbf" + text(WORDS),
    "with tabulators": text(WORDS).replace(b" ", b"\t"),
}


@at_once("name", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_format_is_told_by_what_is_in_the_file(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(gzip.compress(FORMATS[name]) if packed else FORMATS[name])
    found = read_vectors(path)
    assert found.words == list(WORDS)
    assert np.allclose(found.matrix, list(WORDS.values()))
    assert found.problems == ()


@at_once("binary", [True, False])
def test_what_gensim_writes_is_read(tmp_path: Path, binary: bool) -> None:
    rng = np.random.default_rng(1)
    words = [f"word{i}" for i in range(300)]
    keyed = KeyedVectors(50)
    matrix: NDArray[np.float32] = rng.normal(size=(300, 50)).astype(np.float32)
    keyed.add_vectors(words, matrix)
    keyed.save_word2vec_format(str(tmp_path / "v"), binary=binary)
    found = read_vectors(tmp_path / "v")
    assert found.words == words
    assert np.allclose(found.matrix, matrix, atol=1e-6)


def test_gensim_reads_what_is_saved(tmp_path: Path) -> None:
    matrix: NDArray[np.float32] = np.arange(12, dtype=np.float32).reshape(3, 4)
    WordVectors(["a", "крас", "c"], matrix).save(tmp_path / "v")
    keyed = KeyedVectors.load_word2vec_format(str(tmp_path / "v"), binary=True)
    assert keyed.index_to_key == ["a", "крас", "c"]
    assert np.array_equal(keyed.vectors, matrix)


def test_a_word_of_glove_may_hold_spaces_and_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\n. . . 4 5 6\nat 7 8 9 10\n7 1 1 1\n<unk> 0 0 0\n")
    assert read_vectors(path).words == ["the", ". . .", "at 7", "7", "<unk>"]


@at_once("word", ["<unk>", "{", "BZh", "PAR1"])
def test_a_first_word_may_look_as_another_format_begins(tmp_path: Path, word: str) -> None:
    (tmp_path / "glove.txt").write_text(f"{word} 1 2 3\nthe 4 5 6\n")
    assert read_vectors(tmp_path / "glove.txt").words == [word, "the"]


def test_only_words_that_are_wanted_are_kept_and_the_first_of_each(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("red 1 2 3\nblue 4 5 6\nred 7 8 9\n")
    found = read_vectors(path, {"red", "green"})
    assert (found.words, found.matrix.tolist()) == (["red"], [[1, 2, 3]])


NAN, HUGE = float("nan"), float("inf")


@at_once(
    "data, problem",
    [
        (binary(encoded(WORDS) | {b"blue": [1, NAN, 2]}), "1 row is skipped: not 3 finite numbers"),
        (text(dict(WORDS) | {"blue": [1, NAN, 2]}), "1 row is skipped: not 3 finite numbers"),
        (text(dict(WORDS) | {"blue": [1, HUGE, 2]}), "1 row is skipped: not 3 finite numbers"),
        (text(WORDS) + b"blue 1 2\n", "1 row is skipped: not 3 finite numbers"),
        (text(WORDS) + b"blue 1 2 x\n", "1 row is skipped: not 3 finite numbers"),
        (text(WORDS) + b"blue 1 2 1e300\n", "1 row is skipped: not 3 finite numbers"),
        (
            binary(encoded(WORDS) | {b"caf\xe9": [1, 2, 3]}),
            "1 row is skipped: a word that is not UTF-8",
        ),
        (text(WORDS) + b"caf\xe9 1 2 3\n", "1 row is skipped: a word that is not UTF-8"),
        (
            text(WORDS).replace(b"3 3", b"9 3", 1),
            "it ends after 3 of the 9 words stated in its header",
        ),
    ],
)
def test_a_row_of_no_use_is_skipped_and_counted(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "v").write_bytes(data)
    found = read_vectors(tmp_path / "v")
    assert found.words == list(WORDS)
    assert found.problems == (problem,)


def zipped() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("glove.txt", text(WORDS, header=False))
    return file.getvalue()


@at_once(
    "data, said",
    [
        (b"\xba\x16\x4f\x2f" + bytes(64), "a fastText model"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (zipped(), "a zip archive"),
        (b"<html><body>not found</body></html>", "an HTML"),
        (b'{"the": [1, 2]}', "JSON"),
        ("the 1 2 3\n".encode("utf-16"), "text in UTF-16"),
        (b"A letter to somebody.\nIt has lines.\n", "is not a file of word vectors"),
        (b"", "is not a file of word vectors"),
        (bytes(500), "is not a file of word vectors"),
        (b"3 0\nred\n", "header with 0 numbers per word"),
        (b"3 99999999999\nred 1\n", "header with 99999999999 numbers per word"),
        (b"2 4\nred 1 2 3\nblue 1 2 3\n", "header with 4 numbers per word, but its words have 3"),
        (binary(encoded(WORDS), told=9), "ends after 3 of the 9 words"),
        (binary(encoded(WORDS))[:-6], "ends after 2 of the 3 words"),
        (b"1 3\n" + b"x" * 9_000, "has no word where number 1 should begin"),
        (binary({b"a": [NAN] * 3, b"b": [NAN] * 3, b"c": [1, 2, 3]}), "2 rows are skipped"),
        (gzip.compress(text(WORDS))[:-12], "cannot be read"),
    ],
)
def test_what_is_no_file_of_word_vectors_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "v.bin").write_bytes(data)
    with pytest.raises(InvalidData) as refused:
        read_vectors(tmp_path / "v.bin")
    assert said in str(refused.value)
    assert str(tmp_path / "v.bin") in str(refused.value)
    if said != "cannot be read":
        assert "fastText's .vec and GloVe's text are read" in str(refused.value)


def test_a_bundles_words_are_whole(tmp_path: Path) -> None:
    """What may be skipped of somebody's file may not of a model that knows each word."""
    (tmp_path / "words.bin").write_bytes(binary(encoded(WORDS) | {b"blue": [NAN] * 3}))
    with pytest.raises(InvalidBundle, match="is damaged: 1 row is skipped"):
        load_vectors(tmp_path / "words.bin")


def test_skipped_rows_are_told_to_who_takes_vectors_for_captions(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(text(WORDS) + b"caf\xe9 1 2 3\n")
    vectors, skipped = vectors_for(tmp_path / "v", ["a red dog", "don\u2019t"])
    assert vectors.words == ["red", "don't"]
    assert skipped == ("1 row is skipped: a word that is not UTF-8",)


# -- how many of the captions' words are known -----------------------------------------------


def test_it_is_said_how_many_of_the_captions_words_are_known() -> None:
    found = Coverage.of({"a", "red", "dog"}, ["a red dog", "a zebra", "a zebra and a gnu"])
    assert str(found) == (
        "3 of the 6 words of the captions have vectors, 60.0% of all tokens; "
        "unknown: zebra, and, gnu"
    )
    assert not found.is_poor


@at_once(
    "known, said, poor",
    [
        ({"a", "b"}, "2 of the 2 words of the captions have vectors", False),
        (
            {"x"},
            "0 of the 2 words of the captions have vectors, 0.0% of all tokens; unknown: a, b",
            True,
        ),
    ],
)
def test_a_vocabulary_that_knows_little_is_poor(known: set[str], said: str, poor: bool) -> None:
    found = Coverage.of(known, ["a b"])
    assert (str(found), found.is_poor) == (said, poor)


def test_unknown_words_are_named_by_how_often_they_are_said() -> None:
    words = [w for i, w in enumerate("abcdefg") for _ in range(10 - i)]
    assert str(Coverage.of(set(), [" ".join(words)])).endswith("unknown: a, b, c, d, e, …")
