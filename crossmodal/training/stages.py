"""The three stages of making a bundle: word vectors, text-to-image, image-to-text.

Each reads what the stages before it left in the folder and adds its own files; when all
are there, the bundle is evaluated and sealed.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from crossmodal.datasets.base import Dataset
from crossmodal.datasets.scenes import Scenes
from crossmodal.errors import DataInvalid, InvalidSetting
from crossmodal.models.bundle import DATA_FILES, WORDS, Bundle, seal
from crossmodal.models.captioner import Captioner, CaptionerConfig
from crossmodal.models.vae import VAEConfig
from crossmodal.models.weights import load_weights, save_model
from crossmodal.text.word2vec import WordVectors, load_vectors, train_vectors
from crossmodal.training import evaluation, img2txt, txt2img
from crossmodal.training.loop import Budget, Report, Schedule, fit

CAPTIONS_FOR_WORDS = 20_000
RECORD = "training.json"  # what each stage did, until the manifest takes it over


@dataclass(frozen=True)
class Run:
    """How one stage is to be trained: on what, into which folder, for how long."""

    data: Dataset
    out: Path
    budget: Budget
    seed: int
    report: Report
    resume: bool = False


Stage = Callable[[Run], None]


def open_dataset(name: str) -> Dataset:
    """The data set called `name`. Raises `InvalidSetting`."""
    if name == "scenes":
        return Scenes()
    raise InvalidSetting(f"--dataset {name!r}: there is only 'scenes'")


def train_words(run: Run) -> None:
    """Skip-gram vectors of the data set's captions."""
    texts = list(islice(run.data.texts("train", run.seed), CAPTIONS_FOR_WORDS))
    if not texts:
        raise DataInvalid(f"the data set {run.data.name} has no captions to learn words from")
    vectors = train_vectors(texts, seed=run.seed)
    vectors.save(run.out / WORDS)
    _record(run, "word2vec", {"captions": len(texts), "words": len(vectors.words)})


def train_txt2img(run: Run) -> None:
    """The text-conditioned VAE: first on small pictures, then, and when resumed, on whole ones."""
    torch.manual_seed(run.seed)
    words, config = _words(run.out), VAEConfig()
    model = txt2img.new_model(words, config)
    if run.resume:
        load_weights(model, run.out, "txt2img")

    def loss_of(batch: txt2img.Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        return txt2img.loss_of(model, batch, 1.0 if run.resume else progress)

    metrics = fit(
        model, txt2img.batches(run.data, words, config, run.seed), loss_of,
        run.budget, Schedule(rate=5e-4 if run.resume else 8e-4),
        run.out / "txt2img.log.jsonl", run.report,
    )  # fmt: skip
    save_model(run.out, "txt2img", model)
    _record(run, "txt2img", metrics)


def train_img2txt(run: Run) -> None:
    """The captioner."""
    torch.manual_seed(run.seed)
    config = CaptionerConfig(words=img2txt.vocabulary(_words(run.out).words))
    model = Captioner(config)
    if run.resume:
        load_weights(model, run.out, "img2txt")
    metrics = fit(
        model, img2txt.batches(run.data, config, run.seed),
        lambda batch, _: img2txt.loss_of(model, batch),
        run.budget, Schedule(rate=1e-3, decay=0.05),
        run.out / "img2txt.log.jsonl", run.report,
    )  # fmt: skip
    save_model(run.out, "img2txt", model)
    _record(run, "img2txt", metrics)


STAGES: dict[str, Stage] = {
    "word2vec": train_words,
    "txt2img": train_txt2img,
    "img2txt": train_img2txt,
}


def seal_if_complete(out: Path, name: str, scenes: int) -> Bundle | None:
    """Judge the bundle in `out` by `scenes` scenes and seal it; None while a stage is missing."""
    if not all((out / file).is_file() for file in DATA_FILES):
        return None
    training = json.loads((out / RECORD).read_text())
    bundle = seal(out, name, training, {})
    quality = evaluation.evaluate(bundle, scenes, ("seen", "heldout"))
    return seal(out, name, training, quality)


def _words(out: Path) -> WordVectors:
    if not (out / WORDS).is_file():
        raise InvalidSetting(f"{out} has no {WORDS}: run `crossmodal train word2vec` first, or all")
    return load_vectors(out / WORDS)


def _record(run: Run, stage: str, final: dict[str, float]) -> None:
    """Add to the folder's record that this run has taken place, after those it went on from."""
    path = run.out / RECORD
    record = json.loads(path.read_text()) if path.is_file() else {}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {
        "dataset": run.data.name, "seed": run.seed, **asdict(run.budget),
        "machine": gpu or f"{os.cpu_count()} CPU cores", "torch": torch.__version__,
        "final": {name: round(value, 6) for name, value in final.items()},
    }  # fmt: skip
    record[stage] = [*(record.get(stage, []) if run.resume else []), facts]
    path.write_text(json.dumps(record, indent=2) + "\n")
