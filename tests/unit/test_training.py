"""The loop, its checkpoints and its errors, on models small enough to train in a test."""

import io
import json
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from crossmodal.errors import CheckpointMismatch, InvalidData, TrainingDiverged, TrainingStopped
from crossmodal.training.batches import Batch, Source, batches
from crossmodal.training.checkpoint import Progress
from crossmodal.training.loop import Budget, Course, Schedule, Turn, fit


@pytest.fixture(autouse=True)
def single_threaded() -> None:
    torch.set_num_threads(1)  # small tensors: threads would mostly wait for one another


def line(start: int) -> Generator[Batch, None, None]:
    """Points; batch number `step` is always the same."""
    step = start
    while True:
        points = torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        none = torch.zeros(0)
        yield Batch(points, (), none, none, none, none, none, ("one.jpg: broken",))
        step += 1


class Line:
    """A linear model that learns 3 x + 1 under noise from the global random state.

    `with_state` adds what has a state beside its weights: batch norm, dropout, spectral norm.
    """

    def __init__(self, with_state: bool = False) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Linear(1, 1)
        if with_state:
            middle = spectral_norm(nn.Linear(8, 8))
            self.module = nn.Sequential(
                nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), middle, nn.Linear(8, 1)
            )

    def loss(self, batch: Batch, spent: float) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch.images
        noise = 0.01 * torch.randn_like(x)
        loss = (self.module(x) - 3 * x - 1 + noise).square().mean()
        return loss, {"loss": loss}

    def turn(self) -> Turn:
        return Turn(self.module, self.loss, Schedule(rate=0.1, warmup=1, decay=0.0))


def course(folder: Path, steps: int = 300, resume: bool = False, **identity: object) -> Course:
    return Course(
        folder,
        "line",
        {"config": "linear", **identity},
        Budget(steps=steps),
        torch.device("cpu"),
        False,
        resume,
        lambda *_: None,
        lambda: None,
        log_every=5,
    )


def stopping(course: Course, after: int) -> Course:
    """The same course, asked to stop after so many steps."""
    asked = count(1)
    return replace(course, is_stopped=lambda: next(asked) > after)


def test_the_loop_learns_a_line(tmp_path: Path) -> None:
    model = Line()
    progress = fit([model.turn()], line, course(tmp_path))
    assert model.module.get_parameter("weight").item() == pytest.approx(3, abs=0.05)
    assert model.module.get_parameter("bias").item() == pytest.approx(1, abs=0.05)
    assert (progress.step, progress.skipped) == (300, ["one.jpg: broken"])


def log_of(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "line.log.jsonl").read_text().splitlines())
    return [(entry["step"], entry["loss"]) for entry in lines]


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    unstopped = Line(with_state=True)
    fit([unstopped.turn(), Line().turn()], line, course(whole, 40))
    other = Line(with_state=True)
    with pytest.raises(TrainingStopped, match="step 17"):
        fit([other.turn(), Line().turn()], line, stopping(course(halves, 40), 17))
    torch.manual_seed(99)  # nothing may hang on the state of this process
    resumed = Line(with_state=True)
    progress = fit([resumed.turn(), Line().turn()], line, course(halves, 40, resume=True))
    theirs = unstopped.module.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in resumed.module.state_dict().items())
    assert log_of(halves) == log_of(whole)
    assert progress.step == 40


def test_resuming_without_a_checkpoint_begins_at_the_beginning(tmp_path: Path) -> None:
    assert fit([Line().turn()], line, course(tmp_path, 10, resume=True)).step == 10


def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped):
        fit([Line().turn()], line, stopping(course(tmp_path, 20), 7))
    before = (tmp_path / "line.checkpoint").read_bytes()
    with pytest.raises(CheckpointMismatch, match="--resume"):
        fit([Line().turn()], line, course(tmp_path, 20))
    with pytest.raises(CheckpointMismatch, match="seed None, not 2"):
        fit([Line().turn()], line, course(tmp_path, 20, resume=True, seed=2))
    assert (tmp_path / "line.checkpoint").read_bytes() == before


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 nonsense",
        saved([1, 2]),
        saved({"identity": {"config": "linear"}}),
        saved({"identity": {"config": "linear"}, "modules": [{}], "optimizers": []}),
    ],
)
def test_a_damaged_checkpoint_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "line.checkpoint").write_bytes(data)
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        fit([Line().turn()], line, course(tmp_path, 20, resume=True))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"identity": Evil()}, tmp_path / "line.checkpoint")
    with pytest.raises(CheckpointMismatch):
        fit([Line().turn()], line, course(tmp_path, 20, resume=True))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_changes_no_weight(tmp_path: Path, bad: float) -> None:
    model = Line()
    before = model.module.get_parameter("weight").item()

    def loss_of(batch: Batch, spent: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss = model.module(batch.images).mean() * bad
        return loss, {"loss": loss}

    with pytest.raises(TrainingDiverged, match="lower --rate"):
        fit([Turn(model.module, loss_of, Schedule())], line, course(tmp_path))
    assert model.module.get_parameter("weight").item() == before


def test_the_rate_rises_then_falls_however_short_the_run() -> None:
    schedule = Schedule(rate=1.0, warmup=200)
    short = [schedule.at(step, step / 20) for step in range(21)]
    assert short[0] < 0.01
    assert max(short) == short[2] > 0.9
    assert short[-1] == pytest.approx(0.02)
    assert schedule.at(100, 0.001) == pytest.approx(0.505, abs=0.01)


def test_minutes_go_on_counting_after_a_stop() -> None:
    budget = Budget(minutes=2)
    assert budget.spent(Progress(step=5, elapsed_s=60)) == 0.5
    assert budget.spent(Progress(step=5, elapsed_s=600)) == 1


class Broken:
    """A data set of which some, or all, pictures cannot be read."""

    name, judged, looks, problems, digest = "broken", (), None, (), "broken"

    def size(self, split: str) -> int:
        return 16

    def __init__(self, readable: int) -> None:
        from crossmodal.datasets.scenes import Scenes

        self.scenes, self.readable = Scenes(64), readable

    def example(self, split: str, seed: int, index: int) -> object:
        if index % 4 >= self.readable:
            raise InvalidData(f"{index % 4}.jpg: truncated")
        return self.scenes.example("train", seed, index)


def test_what_cannot_be_read_is_named_and_the_rest_is_trained_on() -> None:
    batch = Source(Broken(3), side=64, size=8, seed=1).batch(0)  # type: ignore[arg-type]
    assert len(batch.texts) == 6
    assert batch.skipped == ("3.jpg: truncated",) * 2


def test_a_batch_of_broken_pictures_takes_the_next_one_that_is_not() -> None:
    source = Source(Broken(1), side=64, size=2, seed=1)  # type: ignore[arg-type]
    batch = source.batch(1)  # of numbers 2 and 3, which are both broken
    assert len(batch.texts) == 2  # 4 and 8
    assert batch.skipped == tuple(f"{i}.jpg: truncated" for i in (2, 3, 1, 2, 3))


def test_a_data_set_without_a_readable_picture_ends_the_run() -> None:
    source = Source(Broken(0), side=64, size=8, seed=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=r"none of .* pictures can be read.*\.jpg"):
        next(batches(source, 0))


def test_batches_are_the_same_from_wherever_they_start() -> None:
    from crossmodal.datasets.scenes import Scenes

    source = Source(Scenes(64), side=64, size=24, seed=1)
    stream = batches(source, 0)
    third = [next(stream) for _ in range(3)][2]
    stream.close()
    again = batches(source, 2)
    same = next(again)
    assert torch.equal(same.images, third.images)
    assert same.texts == third.texts  # which of a picture's captions, too
    again.close()
