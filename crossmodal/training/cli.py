"""`crossmodal train` and `crossmodal evaluate`.

crossmodal train all --dataset scenes --out runs/scenes --minutes 60
crossmodal train all --dataset coco:/data/coco --out runs/coco --minutes 600 --side 128
crossmodal evaluate runs/scenes --json
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal, cast

import torch
import typer
from rich.progress import TaskID

from crossmodal.console import (
    Json,
    console,
    errors_to_exit_status,
    print_json,
    print_table,
    progress,
    stderr,
)
from crossmodal.datasets.files import summary
from crossmodal.datasets.registry import open_dataset
from crossmodal.errors import (
    InvalidSetting,
    OutputNotWritable,
    TrainingError,
    TrainingStopped,
)
from crossmodal.files import write_whole
from crossmodal.models.bundle import MANIFEST, open_bundle
from crossmodal.models.captioner import CellName, Depth
from crossmodal.models.weights import drawing_config
from crossmodal.settings import load_settings
from crossmodal.training.evaluation import evaluate as evaluate_bundle
from crossmodal.training.loop import Budget, Metrics
from crossmodal.training.sealing import keep_quality, seal_if_complete
from crossmodal.training.stages import STAGES, Options, Run, check

INTERRUPTED = 130  # exit status
DRAWING_SHARE = 0.6  # of the minutes of `all`; drawing takes longer to learn
DATASETS = "scenes, coco:DIR or flickr30k:DIR."

DatasetName = Annotated[str, typer.Option("--dataset", help="What to train on: " + DATASETS)]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; made if missing.")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="How long to train.")]
Steps = Annotated[int | None, typer.Option(min=1, help="How many steps to train.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, data and noise.")]
Resume = Annotated[
    bool, typer.Option(help="Go on with what was killed, as if it had not been; skip what is done.")
]
StartFrom = Annotated[
    Path | None, typer.Option(help="Begin with the weights in this folder; may be --out.")
]
Judged = Annotated[int, typer.Option(min=1, help="Examples of each split to judge by.")]
Side = Annotated[int | None, typer.Option(min=16, max=512, help="Of drawn pictures, in pixels.")]
Grids = Annotated[str, typer.Option(help="Latents of the picture decoder; 1 is one flat latent.")]
Width = Annotated[int, typer.Option(min=16, help="Channels of the picture decoder.")]
Words = Annotated[
    Path | None, typer.Option(help="Take vectors from a word2vec .bin file instead of training.")
]
Ordered = Annotated[bool, typer.Option(help="Read words in order, or only their mean.")]
CaptionSide = Annotated[int, typer.Option(min=32, max=512, help="Of pictures to caption.")]
Stages = Annotated[int, typer.Option(min=1, max=4, help="Stages of the ResNet that are used.")]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Examples in a batch.")]
Rate = Annotated[float | None, typer.Option(min=1e-8, help="Of learning; else the stage's own.")]
Amp = Annotated[
    bool | None, typer.Option(help="bfloat16 where it is safe; on a GPU unless said otherwise.")
]
CheckpointEvery = Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")]


def train(
    what: Annotated[str, typer.Argument(metavar="word2vec|txt2img|img2txt|all")],
    out: Out,
    dataset: DatasetName = "scenes",
    minutes: Minutes = None,
    steps: Steps = None,
    seed: Seed = 1,
    resume: Resume = False,
    start_from: StartFrom = None,
    decoder: Annotated[
        Literal["auto", "scene", "picture"], typer.Option(help="scene needs boxes.")
    ] = "auto",
    adversarial: Annotated[bool, typer.Option(help="Add a discriminator: a VAE-GAN.")] = False,
    side: Side = None,
    grids: Grids = "4,8,16",
    width: Width = 64,
    text: Annotated[
        str, typer.Option(help="What reads prompts: word2vec or bert:DIR.")
    ] = "word2vec",
    words: Words = None,
    ordered: Ordered = True,
    depth: Annotated[Literal["18", "34", "50"], typer.Option(help="Of the ResNet.")] = "18",
    pretrained: Annotated[bool, typer.Option(help="Begin with torchvision's ResNet.")] = False,
    caption_side: CaptionSide = 96,
    caption_stages: Stages = 3,
    cell: Annotated[CellName, typer.Option(help="Of the decoder.")] = "lstm",
    attention: Annotated[bool, typer.Option(help="Look at places, or at the whole only.")] = True,
    batch: BatchSize = None,
    rate: Rate = None,
    amp: Amp = None,
    checkpoint_every_s: CheckpointEvery = 60.0,
    judged: Judged = 500,
    as_json: Json = False,
) -> None:
    """Train a stage of a bundle, or all of them; the complete bundle is judged and sealed."""
    with errors_to_exit_status():
        if what not in (*STAGES, "all"):
            raise InvalidSetting(f"{what!r}: choose from {', '.join(STAGES)} or all")
        if what != "word2vec" and minutes is None and steps is None:
            raise InvalidSetting("say how long to train: --minutes N or --steps N")
        options = Options(
            decoder=decoder, adversarial=adversarial, text=text, words=words, ordered=ordered,
            grids=_grids(grids), side=side, width=width, depth=cast(Depth, int(depth)),
            cell=cell, attention=attention, pretrained=pretrained,
            caption_side=caption_side, caption_stages=caption_stages, batch=batch, rate=rate,
            amp=amp, start_from=start_from,
        )  # fmt: skip
        data = open_dataset(dataset, side or 0)
        if data.problems:
            stderr.print(f"{data.name}: {summary(data.problems)}", markup=False, soft_wrap=True)
        stop, trained = _stop_when_told(), False
        stages = tuple(STAGES) if what == "all" else (what,)
        check(Run(data, out, Budget(), seed, _quiet, options, resume), stages)
        _make(out)
        if not resume:
            _begin(out, stages)
        for name in stages:
            budget = _budget(name, what, minutes, steps)
            if resume and _is_done(out, name):
                stderr.print(f"{name} is done already; remove {STAGES[name].made} to repeat it")
                continue
            trained = True
            with progress(name, 1000) as bar:

                def report(done: float, metrics: Metrics, is_logged: bool) -> None:
                    if is_logged:
                        _report(name, done, metrics, as_json)  # noqa: B023
                    label = f"{name} {metrics['per_s']:.2f}/s loss {metrics['loss']:.4g}"  # noqa: B023
                    bar.update(TaskID(0), completed=round(1000 * done), description=label)

                _train(name, Run(data, out, budget, seed, report, options, resume,
                                 checkpoint_every_s, stop.is_set))  # fmt: skip
            _begun(out, name).unlink(missing_ok=True)
        if not trained and (out / MANIFEST).is_file():
            return
        with console.status("judging"):
            bundle = seal_if_complete(out, data, judged)
        if bundle is not None and as_json:
            print_json({"bundle": str(out), "version": bundle.version,
                        "quality": bundle.manifest.quality}, indent=None)  # fmt: skip
        elif bundle is not None:
            console.print(f"sealed {bundle.name} {bundle.version} in {out}")


def _train(stage: str, run: Run) -> None:
    try:
        STAGES[stage].train(run)
    except TrainingStopped as e:
        stderr.print(f"{stage}: {e}", markup=False)
        raise typer.Exit(INTERRUPTED) from e
    except torch.OutOfMemoryError as e:
        raise TrainingError(f"the device has not enough memory: lower --batch ({e})") from e


def _stop_when_told() -> Event:
    """An event that Ctrl-C and SIGTERM set; told once more, they end the process at once."""
    told = Event()

    def tell(number: int, frame: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    signal.signal(signal.SIGINT, tell)
    signal.signal(signal.SIGTERM, tell)
    return told


def _quiet(*_: object) -> None:
    """No report of a run that is only checked."""


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputNotWritable(f"{out} cannot be made: {e.strerror or e}") from e


def _begin(out: Path, stages: Sequence[str]) -> None:
    """Note that the stages are to be trained, whatever an earlier run has left of them."""
    for stage in stages:
        write_whole(_begun(out, stage), b"")


def _begun(out: Path, stage: str) -> Path:
    return out / f"{stage}.begun"


def _is_done(out: Path, stage: str) -> bool:
    unfinished = (out / f"{stage}.checkpoint", _begun(out, stage))
    return (out / STAGES[stage].made).is_file() and not any(file.is_file() for file in unfinished)


def _report(stage: str, done: float, metrics: Metrics, as_json: bool) -> None:
    if as_json:
        print_json({"stage": stage, "done": done, **metrics}, indent=None)
        return
    figures = " ".join(f"{k} {v:.4g}" for k, v in metrics.items())
    console.print(f"{stage} {done:6.1%} {figures}", soft_wrap=True)


def _budget(stage: str, what: str, minutes: float | None, steps: int | None) -> Budget:
    if what == "all" and minutes is not None:
        minutes *= DRAWING_SHARE if stage == "txt2img" else 1 - DRAWING_SHARE
    return Budget(steps=steps, minutes=minutes)


def _grids(text: str) -> tuple[int, ...]:
    sides = tuple(int(part) for part in text.split(",") if part.strip().isdecimal())
    if (
        not sides
        or sides[0] < 1
        or list(sides) != sorted(set(sides))
        or len(sides) != len(text.split(","))
    ):
        raise InvalidSetting(f"--grids {text!r}: give growing sides, such as 4,8,16, or 1")
    return sides


def evaluate(
    bundle: Annotated[Path | None, typer.Argument(help="Its folder; else the one served.")] = None,
    split: Annotated[str, typer.Option(help="seen, heldout (val, test) or all.")] = "all",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help=DATASETS + " Else what it was trained on.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Examples of each split.")] = 2000,
    save: Annotated[bool, typer.Option(help="Write figures and model card to the bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a bundle on fresh examples, by judges that are not the model."""
    with errors_to_exit_status():
        opened = open_bundle(bundle or load_settings().bundle)
        data = open_dataset(dataset or opened.manifest.dataset, drawing_config(opened).side)
        splits = data.judged if split == "all" else (split,)
        if not splits or split not in (*data.judged, "all"):
            raise InvalidSetting(
                f"--split {split!r}: {data.name} has {', '.join(data.judged) or 'none to judge by'}"
            )
        if save and data.name != opened.manifest.dataset:
            raise InvalidSetting(f"--save: {opened.name} was not trained on {data.name}")
        with console.status("evaluating"):
            found = evaluate_bundle(opened, data, count, splits)
            if save:
                keep_quality(opened, data, found)
        if as_json:
            print_json(found)
            return
        print_table(("", "split", "figure", "value"), _rows(found))


def _rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = [
        (task, split, name, value)
        for task in ("txt2img", "img2txt", "round_trip")
        for split, figures in found.get(task, {}).items()
        for name, value in figures.items()
    ]
    return rows + [("judge", "true pictures", k, v) for k, v in found.get("judge", {}).items()]
