"""The command `crossmodal train`.

crossmodal train all --dataset scenes --out runs/scenes --minutes 60
crossmodal train all --dataset coco:/data/coco --out runs/coco --minutes 600 --side 128
"""

import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import typer
from rich.progress import TaskID

from crossmodal.console import (
    FAILED,
    INTERRUPTED,
    Json,
    errors_to_exit_status,
    note,
    print_json,
    progress,
    say,
)
from crossmodal.datasets.base import Dataset
from crossmodal.datasets.files import summary
from crossmodal.datasets.registry import open_dataset
from crossmodal.errors import (
    InvalidSetting,
    OutputNotWritable,
    TrainingError,
    TrainingStopped,
    described,
)
from crossmodal.files import write_whole
from crossmodal.networks.bundle import MANIFEST, Bundle, open_bundle
from crossmodal.networks.resnet import Depth
from crossmodal.training import flags
from crossmodal.training.checks import check, check_decoder, check_start
from crossmodal.training.loop import Budget, Metrics
from crossmodal.training.sealing import missing, name_of, seal_if_complete
from crossmodal.training.stages import STAGES, Options, Run
from crossmodal.training.telling import (
    counted,
    how_to_serve,
    plan,
    tell_coverage,
    warn,
    warnings_of,
)

SAID_ONCE_S = 1.0
DRAWING_SHARE = 0.6  # of the minutes of `all`; text-to-image takes longer to train
# Judging without --judged: examples of each split, share of the minutes, default and min time.
JUDGED, JUDGING_SHARE, JUDGING_S, JUDGING_LEAST_S = 500, 0.25, 60.0, 30.0


@dataclass(frozen=True)
class Judging:
    """The max examples of each split to judge the complete bundle by, and the time limit."""

    count: int
    limit_s: float

    @staticmethod
    def of(judged: int | None, minutes: float | None) -> "Judging":
        if judged is not None:
            return Judging(judged, math.inf)
        if minutes is None:
            return Judging(JUDGED, JUDGING_S)
        return Judging(JUDGED, max(JUDGING_LEAST_S, 60 * JUDGING_SHARE * minutes))

    def said(self, data: Dataset) -> str:
        if not data.judged:
            return f"no judging, as {data.name} has no split to evaluate on"
        by = f"{self.count} examples of each split"
        if self.limit_s == math.inf:
            return f"judging (by {by}; time unknown until it starts)"
        return f"judging (about {self.limit_s:.0f} s at most, by up to {by})"


def train(
    what: flags.What,
    out: flags.Out,
    name: flags.Name = None,
    dataset: flags.TrainedOn = "scenes",
    minutes: flags.Minutes = None,
    steps: flags.Steps = None,
    judged: flags.Judged = None,
    seed: flags.Seed = 1,
    resume: flags.Resume = False,
    start_from: flags.StartFrom = None,
    checkpoint_every_s: flags.CheckpointEvery = 60.0,
    decoder: flags.Decoder = "auto",
    adversarial: flags.Adversarial = False,
    side: flags.Side = None,
    grids: flags.Grids = "4,8,16",
    width: flags.Width = 64,
    text: flags.TextSource = "word2vec",
    words: flags.Words = None,
    ordered: flags.Ordered = True,
    depth: flags.Depth = "18",
    caption_stages: flags.CaptionStages = 3,
    pretrained: flags.Pretrained = False,
    caption_side: flags.CaptionSide = 96,
    cell: flags.Cell = "lstm",
    attention: flags.Attention = True,
    batch: flags.Batch = None,
    rate: flags.Rate = None,
    amp: flags.Amp = None,
    as_json: Json = False,
) -> None:
    """Train a stage of a bundle, or all of them; the complete bundle is judged and sealed."""
    with errors_to_exit_status():
        stages = _stages(what)
        _check_length(what, minutes, steps)
        drawing = (decoder, adversarial, text, words, ordered, _grids(grids), side, width)
        captioning = (cell, attention, pretrained, caption_side, caption_stages)
        options = Options(*drawing, _depth(depth), *captioning, batch, rate, amp, start_from)
        name = _name(out, name, stages)
        run = _prepared(out, stages, options, dataset, seed, resume, checkpoint_every_s)
        done = [s for s in stages if resume and _is_done(out, s)]
        budgets = {s: _budget(s, what, minutes, steps) for s in stages if s not in done}
        _carry_out(run, name, stages, budgets, Judging.of(judged, minutes), as_json)


def _prepared(
    out: Path,
    stages: Sequence[str],
    options: Options,
    dataset: str,
    seed: int,
    resume: bool,
    checkpoint_every_s: float,
) -> Run:
    """Return a run once nothing stands in its way, which is known before the first step."""
    check(options, out, stages, resume)
    data = _opened(dataset, options.side or 0)
    check_decoder(options, data)
    run = Run(data, out, Budget(), seed, lambda *_: None, options, resume, checkpoint_every_s)
    check_start(run, stages)
    _make(out)
    return run


def _carry_out(
    run: Run,
    name: str | None,
    stages: Sequence[str],
    budgets: Mapping[str, Budget],
    judging: Judging,
    as_json: bool,
) -> None:
    """Train the stages that have a budget, then judge and seal the bundle."""
    for stage in stages:
        if stage not in budgets:
            made = run.out / STAGES[stage].made
            note(f"{stage} is done already; remove {made} to repeat it")
    if not budgets and _is_judged(run.out):
        say(how_to_serve(run.out))
        return
    note(plan(budgets, "" if missing(run.out, stages) else judging.said(run.data)))
    _train_all(run, stages, budgets, as_json)
    _judge_and_seal(run.out, name, run.data, judging, as_json)


def _train_all(
    run: Run, stages: Sequence[str], budgets: Mapping[str, Budget], as_json: bool
) -> None:
    """Train stages that are not done, one after the other, until Ctrl-C or SIGTERM."""
    if not run.resume:
        _begin(run.out, stages)
    if "word2vec" not in budgets:
        tell_coverage(run.out, run.data, run.seed)
    with told_to_stop() as is_stopped:
        for stage, budget in budgets.items():
            with _reported(stage, as_json) as report:
                _train(stage, replace(run, budget=budget, report=report, is_stopped=is_stopped))
            _begun(run.out, stage).unlink(missing_ok=True)
            if stage == "word2vec":
                tell_coverage(run.out, run.data, run.seed)


def _stages(what: str) -> tuple[str, ...]:
    if what not in (*STAGES, "all"):
        raise InvalidSetting(f"{what!r}: choose from {', '.join(STAGES)} or all")
    return tuple(STAGES) if what == "all" else (what,)


def _check_length(what: str, minutes: float | None, steps: int | None) -> None:
    if what != "word2vec" and minutes is None and steps is None:
        raise InvalidSetting("set the length of training: --minutes N or --steps N")


def _depth(text: str) -> Depth:
    return cast(Depth, int(text))


def _name(out: Path, name: str | None, stages: Sequence[str]) -> str | None:
    """Return the name of the bundle; None while it lacks a stage. Raises `InvalidSetting`."""
    lacking = missing(out, stages)
    if not lacking:
        return name_of(out, name)
    if name is not None:
        raise InvalidSetting(
            f"--name {name!r}: the bundle still lacks {' and '.join(lacking)}; give the name with "
            "the last stage"
        )
    return None


def _opened(dataset: str, side: int) -> Dataset:
    data = open_dataset(dataset, side)
    if data.problems:
        note(f"{data.name}: {summary(data.problems)}")
    return data


@contextmanager
def _reported(stage: str, as_json: bool) -> Iterator[Any]:
    """Yield a function that reports steps to a progress bar, and prints logged ones as lines."""
    with progress(stage, 1000) as bar:

        def report(done: float, metrics: Metrics, is_logged: bool) -> None:
            if is_logged:
                _report(stage, done, metrics, as_json)
            label = f"{stage} {metrics['per_s']:.2f}/s loss {metrics['loss']:.4g}"
            bar.update(TaskID(0), completed=round(1000 * done), description=label)

        yield report


def _train(stage: str, run: Run) -> None:
    try:
        STAGES[stage].train(run)
    except TrainingStopped as e:
        note(f"{stage}: {e}")
        raise typer.Exit(INTERRUPTED) from e
    except torch.OutOfMemoryError as e:
        raise TrainingError(f"out of memory on the device: lower --batch ({e})") from e


def _judge_and_seal(
    out: Path, name: str | None, data: Dataset, judging: Judging, as_json: bool
) -> None:
    try:
        with _interrupted_by_sigterm(), counted("judging", judging.limit_s) as tell:
            bundle = seal_if_complete(out, name, data, judging.count, judging.limit_s, tell)
    except KeyboardInterrupt:
        note(
            f"stopped while judging; the bundle is whole: `crossmodal evaluate {out} --save` "
            "judges it"
        )
        raise typer.Exit(INTERRUPTED) from None
    if bundle is None:
        note(f"no bundle yet: train {' and '.join(missing(out))} with the same --out")
        return
    quality = bundle.manifest.quality
    warnings = warnings_of(quality, data.judged)
    warn(warnings)
    _say_sealed(out, bundle, warnings, as_json)
    if not quality.get("count"):  # an unmeasured bundle is a failure
        raise typer.Exit(FAILED)


def _say_sealed(out: Path, bundle: Bundle, warnings: list[str], as_json: bool) -> None:
    quality, serve = bundle.manifest.quality, how_to_serve(out)
    if as_json:
        print_json(
            {
                "bundle": str(out),
                "name": bundle.name,
                "version": bundle.version,
                "quality": quality,
                "warnings": warnings,
                "serve": serve,
            },
            indent=None,
        )
        return
    by = f", judged by {quality['count']} examples of each split" if quality.get("count") else ""
    say(f"sealed {bundle.name} {bundle.version} in {out}{by}")
    say(serve)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on the first SIGTERM; ignore later ones."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def told_to_stop() -> Iterator[Any]:
    """Yield whether SIGINT or SIGTERM has arrived; a second one raises `KeyboardInterrupt`.

    `timeout` signals both a process and its group: signals within a second count as one.
    """
    told: list[float] = []

    def tell(number: int, frame: object) -> None:
        told.append(time.monotonic())
        if told[-1] - told[0] > SAID_ONCE_S:
            raise KeyboardInterrupt

    former = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputNotWritable(f"{out} cannot be created: {described(e)}") from e


def _begin(out: Path, stages: Sequence[str]) -> None:
    """Mark the stages as begun, so that outputs of an earlier run do not count as done."""
    for stage in stages:
        write_whole(_begun(out, stage), b"")


def _begun(out: Path, stage: str) -> Path:
    return out / f"{stage}.begun"


def _is_done(out: Path, stage: str) -> bool:
    unfinished = (out / f"{stage}.checkpoint", _begun(out, stage))
    return (out / STAGES[stage].made).is_file() and not any(file.is_file() for file in unfinished)


def _is_judged(out: Path) -> bool:
    return (out / MANIFEST).is_file() and bool(open_bundle(out).manifest.quality)


def _report(stage: str, done: float, metrics: Metrics, as_json: bool) -> None:
    if as_json:
        print_json({"stage": stage, "done": done, **metrics}, indent=None)
        return
    figures = " ".join(f"{k} {v:.4g}" for k, v in metrics.items())
    say(f"{stage} {done:6.1%} {figures}")


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
        raise InvalidSetting(f"--grids {text!r}: give ascending sides, such as 4,8,16, or 1")
    return sides
