"""The one training loop: batches in, steps of AdamW with a cosine schedule, a line a log step."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from crossmodal.errors import CrossmodalError

Batch = TypeVar("Batch")
Metrics = dict[str, float]
Report = Callable[[float, Metrics], None]  # progress in [0, 1] and the latest figures


class TrainingDiverged(CrossmodalError):
    """The loss is no longer a number; the weights from before are kept."""

    code = "training_diverged"


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever of `steps` and `minutes` is given, or reached first."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, elapsed_s: float) -> float:
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up over `warmup` steps, then a cosine down to `floor` of it."""

    rate: float = 1e-3
    warmup: int = 200
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.01

    def at(self, step: int, progress: float) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        ramp = min(1.0, (step + 1) / self.warmup)
        return self.rate * ramp * (self.floor + (1 - self.floor) * cosine)


@dataclass
class Averages:
    """Exponential moving averages of the metrics, for a log that can be read."""

    values: Metrics = field(default_factory=dict)

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, tensor in metrics.items():
            value = float(tensor.detach())
            self.values[name] = value + 0.98 * (self.values.get(name, value) - value)


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch, float], tuple[Tensor, dict[str, Tensor]]],
    budget: Budget,
    schedule: Schedule,
    log: Path,
    report: Report,
    log_every: int = 50,
) -> Metrics:
    """Train `model` in place until the budget is spent; returns the last averages.

    Writes one JSON line a log step to `log`. Raises `TrainingDiverged` on a loss that is
    not finite, before that step changes the weights.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.rate, betas=schedule.betas, weight_decay=schedule.decay
    )
    model.train()
    averages, started, step, progress = Averages(), time.monotonic(), 0, 0.0
    with log.open("a") as lines:
        while progress < 1:
            for group in optimizer.param_groups:
                group["lr"] = schedule.at(step, progress)
            loss, metrics = loss_of(next(batches), progress)
            if not torch.isfinite(loss):
                raise TrainingDiverged(f"the loss is {loss.item()} at step {step}: lower the rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            averages.add({"loss": loss, **metrics})
            step += 1
            elapsed_s = time.monotonic() - started
            progress = budget.progress(step, elapsed_s)
            if step % log_every == 0 or progress >= 1:
                line = {"step": step, "elapsed_s": round(elapsed_s, 1), **averages.values}
                lines.write(json.dumps(line) + "\n")
                lines.flush()
                report(progress, {"step": float(step), **averages.values})
    model.eval()
    return averages.values
