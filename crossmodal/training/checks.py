"""Checks before training, of options and folders that would only fail later."""

from collections.abc import Sequence
from pathlib import Path

from crossmodal.datasets.base import TRAIN, Dataset
from crossmodal.errors import InvalidSetting
from crossmodal.networks.bundle import WORDS
from crossmodal.networks.picture_vae import NORM_GROUPS
from crossmodal.text.bert import WEIGHTS as BERT_WEIGHTS
from crossmodal.text.bert import BertVectors
from crossmodal.text.coverage import Coverage
from crossmodal.text.word_vectors import load_vectors
from crossmodal.training.checkpoint import refuse_unfinished
from crossmodal.training.inheritance import check_captioner, check_drawing
from crossmodal.training.stages import STAGES, Options, Run, captioner_config, drawing_config


def check(o: Options, out: Path, stages: Sequence[str], resume: bool) -> None:
    """Check the options before a data set is opened or a file is written.

    Raises `InvalidSetting` or `CheckpointMismatch`.
    """
    if o.width % NORM_GROUPS:
        raise InvalidSetting(f"--width {o.width}: give a multiple of {NORM_GROUPS}")
    _check_text(o.text)
    if o.words and not o.words.is_file():
        raise InvalidSetting(f"--words {o.words}: there is no such file")
    if "word2vec" not in stages:
        require_words(out)
    if o.start_from:
        _check_origin(o.start_from, stages)
    for stage in stages:
        if not resume:
            refuse_unfinished(out / f"{stage}.checkpoint")
    if "word2vec" in stages and not (resume or o.start_from):
        _refuse_new_words(out, stages)


def _check_origin(origin: Path, stages: Sequence[str]) -> None:
    made = [f"{s}.{kind}" for s in stages if s != "word2vec" for kind in ("json", "safetensors")]
    for name in (WORDS, *made):
        if not (origin / name).is_file():
            raise InvalidSetting(f"--start-from {origin}: there is no {name} in it")


def _refuse_new_words(out: Path, stages: Sequence[str]) -> None:
    """Raise `InvalidSetting` if new word vectors would not match the models in `out`."""
    made = [s for s in ("txt2img", "img2txt") if (out / STAGES[s].made).is_file()]
    if not made:
        return
    if len(stages) == 1:
        raise InvalidSetting(
            f"{out} holds {' and '.join(made)} trained on its word vectors: choose another --out "
            "for new vectors"
        )
    what = "bundle" if len(made) == 2 else made[0]
    raise InvalidSetting(
        f"{out} holds a trained {what} already: resume it with --resume, or choose another --out"
    )


def _check_text(text: str) -> None:
    kind, _, folder = text.partition(":")
    if kind not in ("word2vec", "bert") or text == "bert":
        raise InvalidSetting(f"--text {text!r}: choose word2vec or bert:DIR")
    if kind == "bert" and not (Path(folder).expanduser() / BERT_WEIGHTS).is_file():
        raise InvalidSetting(
            f"--text {text}: there is no {BERT_WEIGHTS} in it; weights in several files must be "
            "saved as one"
        )


def check_decoder(options: Options, data: Dataset) -> None:
    """Raise `InvalidSetting` if the decoder needs groundings and the data set has none."""
    if options.decoder == "scene" and not data.looks:
        raise InvalidSetting(f"--decoder scene needs groundings; {data.name} has none")


def check_start(run: Run, stages: Sequence[str]) -> None:
    """Check that the weights to start from fit the models and captions of `run`.

    Raises `InvalidSetting`.
    """
    origin = run.options.start_from
    if origin is None:
        return
    if "txt2img" in stages:
        check_drawing(drawing_config(run, _word_dim(run, origin, stages)), origin)
    if "img2txt" in stages:
        check_captioner(captioner_config(run), origin)


def _word_dim(run: Run, origin: Path, stages: Sequence[str]) -> int:
    """Return the size of a word vector of the text-to-image model."""
    kind, _, folder = run.options.text.partition(":")
    if kind == "bert":
        return BertVectors(Path(folder).expanduser()).dim
    if "word2vec" not in stages and (origin / WORDS).read_bytes() != (run.out / WORDS).read_bytes():
        raise InvalidSetting(
            f"--start-from {origin}: its txt2img was trained on other vectors than those in "
            f"{run.out}: run `crossmodal train word2vec --start-from {origin}` first, or all"
        )
    vectors = load_vectors(origin / WORDS)
    if not Coverage.of(set(vectors.words), run.data.texts(TRAIN, run.seed)).known:
        raise InvalidSetting(
            f"--start-from {origin}: its vocabulary has no word of the captions of {run.data.name}"
        )
    return vectors.dim


def require_words(out: Path) -> None:
    """Raise `InvalidSetting` if `out` has no word vectors yet."""
    if not (out / WORDS).is_file():
        raise InvalidSetting(f"{out} has no {WORDS}: run `crossmodal train word2vec` first, or all")
