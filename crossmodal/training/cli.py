"""`crossmodal train` and `crossmodal evaluate`.

crossmodal train all --dataset scenes --out runs/scenes --minutes 60
crossmodal evaluate runs/scenes --json
"""

from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.progress import TaskID

from crossmodal.console import (
    Json,
    console,
    errors_to_exit_status,
    print_json,
    print_table,
    progress,
)
from crossmodal.datasets.base import Split
from crossmodal.errors import InvalidSetting
from crossmodal.models.bundle import open_bundle
from crossmodal.settings import load_settings
from crossmodal.training.evaluation import evaluate as evaluate_bundle
from crossmodal.training.loop import Budget, Metrics
from crossmodal.training.stages import STAGES, Run, open_dataset, seal_if_complete

DRAWING_SHARE = 0.4  # of the minutes of `all`; the captioner takes longer to learn

DatasetName = Annotated[str, typer.Option("--dataset", help="What to train on: scenes.")]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; made if missing.")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="How long to train.")]
Steps = Annotated[int | None, typer.Option(min=1, help="How many steps to train.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, data and noise.")]


def train(
    what: Annotated[str, typer.Argument(metavar="word2vec|txt2img|img2txt|all")],
    out: Out,
    dataset: DatasetName = "scenes",
    minutes: Minutes = None,
    steps: Steps = None,
    seed: Seed = 1,
    resume: Annotated[bool, typer.Option(help="Go on from the weights in --out.")] = False,
    judged: Annotated[int, typer.Option(min=1, help="Scenes of each split to judge by.")] = 500,
    as_json: Json = False,
) -> None:
    """Train a stage of a bundle, or all of them; the complete bundle is evaluated and sealed."""
    with errors_to_exit_status():
        if what not in (*STAGES, "all"):
            raise InvalidSetting(f"{what!r}: choose from {', '.join(STAGES)} or all")
        if what != "word2vec" and minutes is None and steps is None:
            raise InvalidSetting("say how long to train: --minutes N or --steps N")
        data = open_dataset(dataset)
        out.mkdir(parents=True, exist_ok=True)
        for name in STAGES if what == "all" else (what,):
            budget = _budget(name, what, minutes, steps)
            with progress(name, 1000) as bar:

                def report(done: float, metrics: Metrics) -> None:
                    bar.update(TaskID(0), completed=round(1000 * done))
                    if as_json:
                        print_json({"stage": name, "done": done, **metrics}, indent=None)  # noqa: B023
                        return
                    figures = " ".join(f"{k} {v:.4g}" for k, v in metrics.items())
                    console.print(f"{name} {done:6.1%} {figures}", soft_wrap=True)  # noqa: B023

                STAGES[name](Run(data, out, budget, seed, report, resume))
        bundle = seal_if_complete(out, dataset, judged)
        if bundle is not None and as_json:
            print_json({"bundle": str(out), "version": bundle.version,
                        "quality": bundle.manifest.quality}, indent=None)  # fmt: skip
        elif bundle is not None:
            console.print(f"sealed {bundle.name} {bundle.version} in {out}")


def _budget(stage: str, what: str, minutes: float | None, steps: int | None) -> Budget:
    if what == "all" and minutes is not None:
        minutes *= DRAWING_SHARE if stage == "txt2img" else 1 - DRAWING_SHARE
    return Budget(steps=steps, minutes=minutes)


def evaluate(
    bundle: Annotated[Path | None, typer.Argument(help="Its folder; else the one served.")] = None,
    split: Annotated[str, typer.Option(help="seen, heldout or all.")] = "all",
    count: Annotated[int, typer.Option(min=1, help="Scenes of each split.")] = 500,
    as_json: Json = False,
) -> None:
    """Measure a bundle on fresh scenes, by an independent judge."""
    with errors_to_exit_status():
        splits: tuple[Split, ...] = ("seen", "heldout")
        if split != "all":
            if split not in get_args(Split)[1:]:
                raise InvalidSetting(f"--split {split!r}: choose seen, heldout or all")
            splits = tuple(s for s in splits if s == split)
        opened = open_bundle(bundle or load_settings().bundle)
        with console.status("evaluating"):
            found = evaluate_bundle(opened, count, splits)
        if as_json:
            print_json(found)
            return
        rows = [
            (task, name, fact, value)
            for task in ("txt2img", "img2txt")
            for name, facts in found[task].items()
            for fact, value in facts.items()
        ]
        print_table(("", "split", "fact", "right"), rows)
