"""The three stages of making a bundle: word vectors, text-to-image, image-to-text.

Each reads what the stages before it left in the folder and adds its own files; when all
are there, the bundle is evaluated and sealed.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from crossmodal.datasets.base import Dataset
from crossmodal.datasets.scenes import Scenes
from crossmodal.errors import DataInvalid, InvalidSetting
from crossmodal.models.bundle import DATA_FILES, WORDS, Bundle, seal
from crossmodal.models.captioner import Captioner, CaptionerConfig
from crossmodal.models.vae import VAEConfig
from crossmodal.models.weights import save_model
from crossmodal.text.word2vec import WordVectors, load_vectors, train_vectors
from crossmodal.training import evaluation, img2txt, txt2img
from crossmodal.training.loop import Budget, Report, Schedule, fit

CAPTIONS_FOR_WORDS = 20_000
EVALUATED_SCENES = 500
RECORD = "training.json"  # what each stage did, until the manifest takes it over
Stage = Callable[[Dataset, Path, Budget, int, Report], None]


def open_dataset(name: str) -> Dataset:
    """The data set called `name`. Raises `InvalidSetting`."""
    if name == "scenes":
        return Scenes()
    raise InvalidSetting(f"--dataset {name!r}: there is only 'scenes'")


def train_words(data: Dataset, out: Path, budget: Budget, seed: int, report: Report) -> None:
    """Skip-gram vectors of the data set's captions."""
    texts = list(islice(data.texts("train", seed), CAPTIONS_FOR_WORDS))
    if not texts:
        raise DataInvalid(f"the data set {data.name} has no captions to learn words from")
    vectors = train_vectors(texts, seed=seed)
    vectors.save(out / WORDS)
    _record(out, "word2vec", data, {"captions": len(texts), "words": len(vectors.words)})


def train_txt2img(data: Dataset, out: Path, budget: Budget, seed: int, report: Report) -> None:
    """The text-conditioned VAE."""
    torch.manual_seed(seed)
    words, config = _words(out), VAEConfig()
    model = txt2img.new_model(words, config)
    metrics = fit(
        model,
        txt2img.batches(data, words, config, seed),
        lambda batch, progress: txt2img.loss_of(model, batch, progress),
        budget, Schedule(rate=8e-4), out / "txt2img.log.jsonl", report,
    )  # fmt: skip
    save_model(out, "txt2img", model)
    _record(out, "txt2img", data, {"budget": asdict(budget), "final": metrics, "seed": seed})


def train_img2txt(data: Dataset, out: Path, budget: Budget, seed: int, report: Report) -> None:
    """The captioner."""
    torch.manual_seed(seed)
    config = CaptionerConfig(words=img2txt.vocabulary(_words(out).words))
    model = Captioner(config)
    metrics = fit(
        model,
        img2txt.batches(data, config, seed),
        lambda batch, progress: img2txt.loss_of(model, batch, progress),
        budget, Schedule(rate=1e-3, decay=0.05), out / "img2txt.log.jsonl", report,
    )  # fmt: skip
    save_model(out, "img2txt", model)
    _record(out, "img2txt", data, {"budget": asdict(budget), "final": metrics, "seed": seed})


STAGES: dict[str, Stage] = {
    "word2vec": train_words,
    "txt2img": train_txt2img,
    "img2txt": train_img2txt,
}


def seal_if_complete(out: Path, name: str) -> Bundle | None:
    """Evaluate and seal the bundle in `out`; None while a stage is missing."""
    if not all((out / file).is_file() for file in DATA_FILES):
        return None
    training = json.loads((out / RECORD).read_text())
    bundle = seal(out, name, training, {})
    quality = evaluation.evaluate(bundle, EVALUATED_SCENES, ("seen", "heldout"))
    return seal(out, name, training, quality)


def _words(out: Path) -> WordVectors:
    if not (out / WORDS).is_file():
        raise InvalidSetting(f"{out} has no {WORDS}: run `crossmodal train word2vec` first, or all")
    return load_vectors(out / WORDS)


def _record(out: Path, stage: str, data: Dataset, facts: dict[str, Any]) -> None:
    path = out / RECORD
    record = json.loads(path.read_text()) if path.is_file() else {}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    record[stage] = {"dataset": data.name, "machine": machine, "torch": torch.__version__, **facts}
    path.write_text(json.dumps(record, indent=2) + "\n")
