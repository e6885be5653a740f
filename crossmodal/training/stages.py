"""The three stages of making a bundle: word vectors, text-to-image, image-to-text.

Each reads the files of earlier stages from the folder and adds its own atomically. When all
files exist, the bundle can be sealed.
"""

import hashlib
import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from crossmodal.console import note
from crossmodal.datasets.base import TRAIN, Dataset
from crossmodal.errors import InvalidData
from crossmodal.files import whole, write_whole
from crossmodal.networks.bundle import BERT, MANIFEST, WORDS
from crossmodal.networks.captioner import Captioner, CaptionerConfig, CellName, load_pretrained
from crossmodal.networks.critic import Critic
from crossmodal.networks.drawing import DrawingConfig, build, fit_whitening
from crossmodal.networks.picture_vae import PictureVAE, PictureVAEConfig
from crossmodal.networks.resnet import Depth
from crossmodal.networks.scene_vae import SceneVAE, SceneVAEConfig
from crossmodal.networks.text_encoder import TextEncoderConfig
from crossmodal.networks.weights import load_weights, save_model
from crossmodal.text.bert import FILES as BERT_FILES
from crossmodal.text.bert import BertVectors
from crossmodal.text.tokens import tokenize
from crossmodal.text.vectors import TextVectors
from crossmodal.text.word2vec import train_vectors, vocabulary
from crossmodal.text.word_vectors import WordVectors, load_vectors, vectors_for
from crossmodal.training.batches import Source, batches
from crossmodal.training.checkpoint import Progress
from crossmodal.training.inheritance import take_over
from crossmodal.training.loop import Budget, Course, Report, Schedule, Turn, fit
from crossmodal.training.objectives import (
    CaptionObjective,
    Deceiving,
    PictureObjective,
    SceneObjective,
)
from crossmodal.training.samples import caption_samples, drawing_samples
from crossmodal.training.sharpness import best_edge_gain

RECORD = "training.json"  # the record of each stage, copied to the manifest on sealing
END_MARK = "<end>"
SCENE_WIDTH, SCENE_HEADS = 128, 4  # of the text encoder: captions of scenes are simple
NAMED = 20  # max skipped pictures that the record lists


@dataclass(frozen=True)
class Options:
    """The options of the models; the defaults are those of the shipped bundle.

    `decoder` is `scene` (objects in slots; needs groundings), `picture` (any pictures), or `auto`:
    `scene` if the data set has groundings.
    """

    decoder: Literal["auto", "scene", "picture"] = "auto"
    adversarial: bool = False
    text: str = "word2vec"  # or bert:DIR
    words: Path | None = None  # a file of pretrained vectors
    ordered: bool = True
    grids: tuple[int, ...] = PictureVAEConfig.grids
    side: int | None = None  # of drawn pictures
    width: int = PictureVAEConfig.width  # channels of the picture decoder
    depth: Depth = 18
    cell: CellName = "lstm"
    attention: bool = True
    pretrained: bool = False
    caption_side: int = CaptionerConfig.side
    caption_stages: int = CaptionerConfig.stages
    batch: int | None = None
    rate: float | None = None  # learning rate
    amp: bool | None = None  # None: only on a GPU
    start_from: Path | None = None  # a folder of weights to start from


@dataclass(frozen=True)
class Run:
    """The inputs of training one stage: data, folder, budget, seed, options."""

    data: Dataset
    out: Path
    budget: Budget
    seed: int
    report: Report
    options: Options = Options()
    resume: bool = False
    checkpoint_every_s: float = 60.0
    is_stopped: Callable[[], bool] = lambda: False

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def decoder(self) -> str:
        """The kind of text-to-image decoder to train: `scene` or `picture`."""
        if self.options.decoder != "auto":
            return self.options.decoder
        return "scene" if self.data.looks else "picture"


def train_words(run: Run) -> None:
    """Train skip-gram vectors on the captions, or read vectors of their words from a file.

    A run that starts from other weights copies their word vectors.
    """
    if run.options.start_from:
        if run.options.start_from.resolve() != run.out.resolve():
            write_whole(run.out / WORDS, (run.options.start_from / WORDS).read_bytes())
        return
    texts = list(run.data.texts(TRAIN, run.seed))
    if not texts:
        raise InvalidData(f"the data set {run.data.name} has no captions to learn words from")
    skipped: tuple[str, ...] = ()
    if run.options.words:
        vectors, skipped = vectors_for(run.options.words, texts)
        for problem in skipped:
            note(f"{run.options.words}: {problem}")
    else:
        vectors = train_vectors(texts, seed=run.seed)
    with whole(run.out / WORDS) as part:
        vectors.save(part)
    facts = {"captions": len(texts), "words": len(vectors.words), "vectors_skipped": skipped}
    _record(run, "word2vec", Progress(), facts)


def train_txt2img(run: Run) -> None:
    """Train the text-conditioned VAE; on scenes first at low resolution, then at full size."""
    torch.manual_seed(run.seed)
    source = _text_source(run)
    config = drawing_config(run, source.dim)
    model = build(config)
    if isinstance(source, WordVectors) and len(source.words) > 1:
        fit_whitening(model, torch.from_numpy(source.matrix))
    if run.options.start_from:
        load_weights(model, run.options.start_from, "txt2img")
    rate = run.options.rate or (5e-4 if run.options.start_from else 8e-4)
    examples = Source(run.data, config.side, run.options.batch or 48, run.seed)
    course = _course(run, "txt2img", config, lambda c: drawing_samples(model, source, run.data, c))
    progress = fit(_drawing_turns(run, model, source, rate), partial(batches, examples), course)
    if isinstance(model, SceneVAE):
        gain = best_edge_gain(model, run.data, run.seed)
        model.config = replace(model.config, edge_gain=gain)
    _finish(run, "txt2img", model, course, progress)


def drawing_config(run: Run, word_dim: int) -> DrawingConfig:
    """Return the config of the text-to-image model that `run` trains on `word_dim` vectors."""
    o = run.options
    text = TextEncoderConfig(
        source="word2vec" if o.text == "word2vec" else "bert", ordered=o.ordered, word_dim=word_dim
    )
    things, looks = run.data.things, run.data.looks
    if run.decoder == "scene" and looks:
        return SceneVAEConfig(
            replace(text, width=SCENE_WIDTH, heads=SCENE_HEADS),
            side=o.side or SceneVAEConfig.side,
            shapes=looks.shapes,
            colors=looks.colors,
            things=things,
        )
    return PictureVAEConfig(
        text, side=o.side or PictureVAEConfig.side, grids=o.grids, width=o.width, things=things
    )


def _drawing_turns(
    run: Run, model: SceneVAE | PictureVAE, source: TextVectors, rate: float
) -> list[Turn]:
    objective: SceneObjective | PictureObjective
    if isinstance(model, SceneVAE):
        objective = SceneObjective(model, source, whole=run.options.start_from is not None)
    else:
        objective = PictureObjective(model, source)
    if not run.options.adversarial:
        return [Turn(model, objective.loss, Schedule(rate))]
    game = Deceiving(objective, Critic())
    return [
        Turn(model, game.loss, Schedule(rate)),
        Turn(game.critic, game.critic_loss, Schedule(2e-4, betas=(0.5, 0.99))),
    ]


def _text_source(run: Run) -> TextVectors:
    """Return the text vectors of the model; copy BERT's files into the bundle if it reads them."""
    kind, _, folder = run.options.text.partition(":")
    if kind == "word2vec":
        return load_vectors(run.out / WORDS)
    origin, copied = Path(folder).expanduser(), run.out / BERT
    bert = BertVectors(origin)
    copied.mkdir(exist_ok=True)
    for name in BERT_FILES:
        if (origin / name).is_file():
            with whole(copied / name) as part:
                shutil.copy(origin / name, part)
    return bert


def train_img2txt(run: Run) -> None:
    """Train the captioner."""
    torch.manual_seed(run.seed)
    o = run.options
    config = captioner_config(run)
    model = Captioner(config)
    if o.pretrained:
        load_pretrained(model)
    if o.start_from:
        shared = take_over(model, o.start_from)
        note(f"img2txt: {shared} of its {len(config.words)} words are those of {o.start_from}")
    turn = Turn(model, CaptionObjective(model).loss, Schedule(o.rate or 1e-3, decay=0.05))
    data = run.data.roughened()
    examples = Source(data, config.side, o.batch or 32, run.seed, complete=True)
    course = _course(run, "img2txt", config, lambda c: caption_samples(model, run.data, c))
    progress = fit([turn], partial(batches, examples), course)
    _finish(run, "img2txt", model, course, progress)


def captioner_config(run: Run) -> CaptionerConfig:
    """Return the config of the captioner that `run` trains.

    Its vocabulary comes from the captions, not from `words.bin`: GoogleNews has no "of".
    """
    o = run.options
    texts = list(run.data.texts(TRAIN, run.seed))
    words = vocabulary(texts)
    often = Counter[str]()  # the max occurrences of each word in one caption
    doubled = set[str]()
    for tokens in map(tokenize, texts):
        often |= Counter(tokens)
        doubled |= {a for a, b in pairwise(tokens) if a == b}
    return CaptionerConfig(
        words=(END_MARK, *words),
        most=(1, *(often[word] for word in words)),
        doubled=tuple(word for word in words if word in doubled),
        side=o.caption_side,
        depth=o.depth,
        stages=o.caption_stages,
        cell=o.cell,
        attention=o.attention,
    )


@dataclass(frozen=True)
class Stage:
    """A stage: its training function, and the file that exists once it is done."""

    train: Callable[[Run], None]
    made: str


STAGES: dict[str, Stage] = {
    "word2vec": Stage(train_words, WORDS),
    "txt2img": Stage(train_txt2img, "txt2img.json"),
    "img2txt": Stage(train_img2txt, "img2txt.json"),
}


def _course(run: Run, stage: str, config: Any, samples: Callable[[Course], None]) -> Course:
    # The rate may change: a diverged run can be resumed with a lower one.
    options = {k: str(v) for k, v in asdict(run.options).items() if k != "rate"}
    words = hashlib.sha256((run.out / WORDS).read_bytes()).hexdigest()
    identity = {
        "stage": stage,
        "content": run.data.digest,
        "seed": run.seed,
        **asdict(run.budget),
        **options,
        "words.bin": words,
        "config": json.dumps(asdict(config), sort_keys=True),
    }
    amp = run.device.type == "cuda" if run.options.amp is None else run.options.amp
    course = Course(
        run.out,
        stage,
        identity,
        run.budget,
        run.device,
        amp,
        run.resume,
        run.report,
        snapshot=lambda: samples(course),
        is_stopped=run.is_stopped,
        checkpoint_every_s=run.checkpoint_every_s,
    )
    return course


def _finish(
    run: Run, stage: str, model: torch.nn.Module, course: Course, progress: Progress
) -> None:
    save_model(run.out, stage, model)
    final = {name: round(value, 6) for name, value in progress.averages.items()}
    _record(run, stage, progress, {"steps_done": progress.step, "final": final})
    course.snapshot()
    course.checkpoint.path.unlink(missing_ok=True)


def _record(run: Run, stage: str, progress: Progress, facts: dict[str, Any]) -> None:
    """Write the folder's record of a stage: this run, after those it started from."""
    record = training_record(run.out)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    skipped = [*run.data.problems, *progress.skipped]
    entry = {
        "command": shlex.join(["crossmodal", *sys.argv[1:]]),
        "dataset": run.data.name,
        "content": run.data.digest,
        "seed": run.seed,
        "minutes_taken": round(progress.elapsed_s / 60, 1),
        "machine": gpu or f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "skipped": len(skipped),
        "skipped_first": skipped[:NAMED],
        **facts,
    }
    origin = run.options.start_from
    record[stage] = [*(training_record(origin).get(stage, []) if origin else []), entry]
    write_whole(run.out / RECORD, json.dumps(record, indent=2) + "\n")
    if skipped:
        write_whole(run.out / "skipped.txt", "\n".join(skipped) + "\n")


def training_record(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the training runs of the models in `folder`, by stage."""
    record: dict[str, list[dict[str, Any]]] = {}
    if (folder / RECORD).is_file():
        record = json.loads((folder / RECORD).read_text())
    elif (folder / MANIFEST).is_file():
        record = json.loads((folder / MANIFEST).read_text())["training"]
    return record
