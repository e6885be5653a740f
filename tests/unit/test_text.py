"""Word vectors and BERT: the same interface, read from the files that they come in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from crossmodal.errors import InvalidBundle, InvalidData
from crossmodal.text.bert import BertVectors
from crossmodal.text.vectors import TextVectors
from crossmodal.text.word2vec import train_vectors, vocabulary
from crossmodal.text.word_vectors import WordVectors, load_vectors, vectors_for
from tests.at_once import at_once
from tests.bert import make_bert

TEXTS = ["a small red circle", "a big blue star on a white background", "two dogs play"] * 5


@pytest.fixture(scope="module")
def trained() -> WordVectors:
    return train_vectors(TEXTS, dim=16)


def google_file(path: Path, words: list[str], dim: int = 8, newline: bytes = b"\n") -> Path:
    """word2vec's binary format written by hand, as the original C program does."""
    rows = [
        w.encode() + b" " + np.full(dim, i, "<f4").tobytes() + newline for i, w in enumerate(words)
    ]
    path.write_bytes(f"{len(words)} {dim}\n".encode() + b"".join(rows))
    return path


def test_words_of_a_small_data_set_are_all_learned(trained: WordVectors) -> None:
    assert set(trained.words) == {word for text in TEXTS for word in text.split()}


def test_rare_words_of_a_large_data_set_are_left_out() -> None:
    texts = ["a red circle"] * 6000 + ["a singular event"]
    vectors = train_vectors(texts, dim=4, epochs=1)
    assert set(vectors.words) == {"a", "red", "circle"}


def test_the_words_of_captions_are_counted_by_the_same_rule() -> None:
    assert vocabulary(["red star", "a red ring"])[0] == "red"
    texts = ["a red circle"] * 6000 + ["a singular event"]
    assert vocabulary(texts) == ("a", "circle", "red")


def test_training_is_repeatable(trained: WordVectors) -> None:
    again = train_vectors(TEXTS, dim=16)
    assert (again.matrix == trained.matrix).all()


def test_vectors_survive_their_file(trained: WordVectors, tmp_path: Path) -> None:
    trained.save(tmp_path / "w.bin")
    loaded = load_vectors(tmp_path / "w.bin")
    assert loaded.words == trained.words
    assert (loaded.matrix == trained.matrix).all()


@at_once("newline", [b"\n", b""])
def test_a_standard_word2vec_file_is_read(tmp_path: Path, newline: bytes) -> None:
    path = google_file(tmp_path / "g.bin", ["</s>", "the", "red", "Circle"], newline=newline)
    vectors = load_vectors(path)
    assert (vectors.dim, vectors.words) == (8, ["</s>", "the", "red", "Circle"])
    assert (vectors.encode("red").vectors == 2).all()


def test_only_the_words_of_the_captions_are_taken_from_a_large_file(tmp_path: Path) -> None:
    path = google_file(tmp_path / "g.bin", ["the", "red", "zebra", "circle"])
    vectors, skipped = vectors_for(path, TEXTS)
    assert (vectors.words, skipped) == (["red", "circle"], ())
    with pytest.raises(InvalidData, match="no word of the captions"):
        vectors_for(path, ["etwas anderes"])


@at_once(
    "data",
    [
        b"",
        b"hello",
        b"3 8\nred ",
        b"1 8\nred " + b"\x00" * 5,
        b"1 0\nred ",
        b"1 99999999999\nred ",
        b"1 2\nred " + b"\xff" * 8,
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(InvalidBundle, match=r"bad\.bin"):
        load_vectors(tmp_path / "bad.bin")


def test_what_is_read_what_is_passed_over_and_what_is_cut_is_told(trained: WordVectors) -> None:
    found = trained.encode("a frobbish star, a red star on a Frobbish circle", 5)
    assert (found.known, found.unknown) == (("a", "star", "a", "red", "star"), ("frobbish",))
    assert len(found.vectors) == 5
    assert found.cut == (
        "the prompt has 8 known words, of which the model reads 5: it does not read 'on a circle'"
    )
    assert trained.encode("a red star", 3).cut == ""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> BertVectors:
    return BertVectors(make_bert(tmp_path_factory.mktemp("bert")))


def test_bert_and_word2vec_have_one_interface(trained: WordVectors, bert: BertVectors) -> None:
    sources: list[TextVectors] = [trained, bert]
    for source in sources:
        found = source.encode("a small red circle", 64)
        assert found.vectors.dtype == np.float32
        assert found.vectors.shape[1] == source.dim
        assert found.unknown == ()
        assert "red" in source.words
        assert len(source.encode("a small red circle " * 30, 10).vectors) == 10
        nothing = source.encode("слово", 64)
        assert (len(nothing.vectors), nothing.unknown) == (0, ("слово",))


def test_berts_vectors_depend_on_their_neighbours(bert: BertVectors) -> None:
    one, other = (bert.encode(text, 64).vectors for text in ("red circle", "red star"))
    assert not np.allclose(one[1], other[1])


def test_threads_that_share_bert_truncate_all_the_same(bert: BertVectors) -> None:
    long = "a small red circle " * 40
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: bert.encode(long, 10), range(200)))
    assert {len(one.vectors) for one in found} == {10}


def test_a_folder_without_bert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="has no BERT"):
        BertVectors(tmp_path)
