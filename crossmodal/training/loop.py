"""The training loop of every stage: AdamW, a cosine schedule, a log of JSON lines."""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossmodal.errors import OutputNotWritable, TrainingDiverged, TrainingStopped, described
from crossmodal.files import write_whole
from crossmodal.training.batches import Batch
from crossmodal.training.checkpoint import Checkpoint, Progress, refuse_unfinished

Metrics = dict[str, float]
# Called every step: progress in [0, 1], the latest metrics, and whether they were logged.
Report = Callable[[float, Metrics, bool], None]
Loss = Callable[[Batch, float], tuple[Tensor, dict[str, Tensor]]]
StreamFrom = Callable[[int], Generator[Batch, None, None]]
SMOOTHING = 0.98  # decay of the logged moving averages
MAX_NORM = 1.0  # gradients are clipped to this norm


@dataclass(frozen=True)
class Budget:
    """The length of a run: `steps` or `minutes`, whichever is reached first."""

    steps: int | None = None
    minutes: float | None = None

    def spent(self, progress: Progress) -> float:
        by_steps = progress.step / self.steps if self.steps else 0.0
        by_time = progress.elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))


@dataclass(frozen=True)
class Schedule:
    """The learning rate: linear warm-up over `warmup` steps, then cosine decay to `floor * rate`.

    Warm-up ends after a tenth of the budget at the latest.
    """

    rate: float = 1e-3
    warmup: int = 200
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.01

    def at(self, step: int, spent: float) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * spent))
        ramp = min(1.0, max((step + 1) / self.warmup, 10 * spent))
        return self.rate * ramp * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True)
class Turn:
    """A module and its loss, minimized by an optimizer of its own once per step."""

    module: nn.Module
    loss: Loss
    schedule: Schedule


@dataclass(frozen=True)
class Course:
    """Everything about a run but its model: folder, budget, device, precision, callbacks.

    `identity` must be equal for a run to be resumed. `snapshot` draws samples, after each
    periodic checkpoint. `is_stopped` is polled between steps, where a run can be resumed.
    """

    folder: Path
    stage: str
    identity: dict[str, Any]
    budget: Budget
    device: torch.device
    amp: bool
    resume: bool
    report: Report
    snapshot: Callable[[], None]
    is_stopped: Callable[[], bool] = lambda: False
    log_every: int = 10
    checkpoint_every_s: float = 60.0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.stage}.log.jsonl"

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder / f"{self.stage}.checkpoint", self.identity)


def fit(turns: Sequence[Turn], stream_from: StreamFrom, course: Course) -> Progress:
    """Train the modules of `turns` in place until the budget is spent.

    Raises `TrainingDiverged` before a step that would make a weight non-finite,
    `OutputNotWritable`, `CheckpointMismatch`, `InvalidData`, and `TrainingStopped` when
    `course.is_stopped()`. It leaves its last checkpoint, also when it fails or is killed.
    """
    modules = [_placed(turn.module, course.device).train() for turn in turns]
    optimizers = [_optimizer(turn) for turn in turns]
    progress = _start(modules, optimizers, course)
    course.checkpoint.save(modules, optimizers, progress)
    begun, saved = time.monotonic() - progress.elapsed_s, time.monotonic()
    with closing(stream_from(progress.step)) as stream:
        while course.budget.spent(progress) < 1 and not course.is_stopped():
            _step(turns, optimizers, next(stream), course, progress)
            progress.elapsed_s = time.monotonic() - begun
            done = course.budget.spent(progress)
            is_logged = progress.step % course.log_every == 0 or done == 1
            if is_logged:
                _log(course, progress)
            course.report(done, _figures(progress), is_logged)
            if time.monotonic() - saved > course.checkpoint_every_s and done < 1:
                course.checkpoint.save(modules, optimizers, progress)
                course.snapshot()
                saved = time.monotonic()
    course.checkpoint.save(modules, optimizers, progress)
    if course.budget.spent(progress) < 1:
        raise TrainingStopped(f"stopped at step {progress.step}: continue with --resume")
    for module in modules:
        module.eval()
    return progress


def _placed(module: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return module.to(device)


def _optimizer(turn: Turn) -> torch.optim.Optimizer:
    s = turn.schedule
    return torch.optim.AdamW(
        turn.module.parameters(), lr=s.rate, betas=s.betas, weight_decay=s.decay
    )


def _start(
    modules: list[nn.Module], optimizers: list[torch.optim.Optimizer], course: Course
) -> Progress:
    """Start from step 0 or resume from the checkpoint; truncate the log to that step.

    The log of an earlier run that is not resumed is kept as `<stage>.log.1.jsonl`.
    """
    path = course.checkpoint.path
    if not course.resume:
        refuse_unfinished(path)
    there = course.resume and path.is_file()
    progress = course.checkpoint.restore(modules, optimizers) if there else Progress()
    if not there and course.log.is_file():
        course.log.replace(course.log.with_suffix(".1.jsonl"))
    write_whole(course.log, "".join(_lines_until(course.log, progress.step)))
    return progress


def _lines_until(log: Path, step: int) -> Iterator[str]:
    if log.is_file():
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                yield line


def _step(
    turns: Sequence[Turn],
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    course: Course,
    progress: Progress,
) -> None:
    spent = course.budget.spent(progress)
    on_device = batch.to(course.device)
    for turn, optimizer in zip(turns, optimizers, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = turn.schedule.at(progress.step, spent)
        with torch.autocast(course.device.type, torch.bfloat16, enabled=course.amp):
            loss, metrics = turn.loss(on_device, spent)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(turn.module.parameters(), MAX_NORM)
        if not torch.isfinite(loss + norm):
            raise TrainingDiverged(
                f"at step {progress.step} the loss is {loss.item():.4g} and its gradient "
                f"{norm.item():.4g}: resume from the last checkpoint with --resume and a lower "
                "--rate"
            )
        optimizer.step()
        _average(progress.averages, metrics)
    progress.step += 1
    known = set(progress.skipped)
    progress.skipped += [s for s in dict.fromkeys(batch.skipped) if s not in known]


def _average(averages: Metrics, metrics: dict[str, Tensor]) -> None:
    for name, tensor in metrics.items():
        value = float(tensor.detach())
        averages[name] = value + SMOOTHING * (averages.get(name, value) - value)


def _figures(progress: Progress) -> Metrics:
    per_s = progress.step / max(progress.elapsed_s, 1e-9)
    return {"step": progress.step, "per_s": round(per_s, 2), **progress.averages}


def _log(course: Course, progress: Progress) -> None:
    line = {"elapsed_s": round(progress.elapsed_s, 1), **_figures(progress)}
    try:
        with course.log.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    except OSError as e:
        raise OutputNotWritable(f"{course.log} cannot be written: {described(e)}") from e
