"""The loop, its checkpoints and its errors, on models small enough to train in a test."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from crossmodal.errors import (
    CheckpointMismatch,
    DataInvalid,
    TrainingDiverged,
    TrainingStopped,
)
from crossmodal.models.bundle import open_bundle
from crossmodal.training.batches import Batch, Source, batches
from crossmodal.training.checkpoint import Progress
from crossmodal.training.loop import Budget, Course, Schedule, Turn, fit
from tests.waiting import until

COCO = Path(__file__).parents[1] / "data" / "coco"


def train_command(*args: str) -> list[str]:
    return [sys.executable, "-m", "crossmodal.cli", "train", *args]


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}  # as much as such small models can use


def train(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        train_command(*args), capture_output=True, text=True, timeout=400, check=False, env=ENV
    )


def line(start: int) -> Generator[Batch, None, None]:
    """Points; batch number `step` is always the same."""
    step = start
    while True:
        points = torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        yield Batch(points, (), torch.zeros(0), torch.zeros(0), ("one.jpg: broken",))
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
        folder, "line", {"config": "linear", **identity}, Budget(steps=steps),
        torch.device("cpu"), False, resume, lambda *_: None, lambda: None, log_every=5,
    )  # fmt: skip


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
    [b"", b"PK\x03\x04 nonsense", saved([1, 2]), saved({"identity": {"config": "linear"}}),
     saved({"identity": {"config": "linear"}, "modules": [{}], "optimizers": []})],
)  # fmt: skip
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

    name, judged, grounded, problems = "broken", (), False, ()

    def size(self, split: str) -> int:
        return 16

    def __init__(self, readable: int) -> None:
        from crossmodal.datasets.scenes import Scenes

        self.scenes, self.readable = Scenes(64), readable

    def example(self, split: str, seed: int, index: int) -> object:
        if index % 4 >= self.readable:
            raise DataInvalid(f"{index % 4}.jpg: truncated")
        return self.scenes.example("train", seed, index)


def test_what_cannot_be_read_is_named_and_the_rest_is_trained_on() -> None:
    batch = Source(Broken(3), side=64, size=8, seed=1).batch(0)  # type: ignore[arg-type]
    assert len(batch.texts) == 6
    assert batch.skipped == ("3.jpg: truncated",) * 2


def test_a_batch_of_broken_pictures_takes_the_next_one_that_is_not() -> None:
    source = Source(Broken(1), side=64, size=2, seed=1)  # type: ignore[arg-type]
    batch = source.batch(1)  # of numbers 2 and 3, which are both broken
    assert len(batch.texts) == 1
    assert batch.skipped == ("2.jpg: truncated", "3.jpg: truncated")


def test_a_data_set_without_a_readable_picture_ends_the_run() -> None:
    source = Source(Broken(0), side=64, size=8, seed=1)  # type: ignore[arg-type]
    with pytest.raises(DataInvalid, match=r"none can be read.*\.jpg"):
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


SMALL = ("--dataset", f"coco:{COCO}", "--batch", "4", "--side", "32", "--grids", "2,4", "--width",
         "16", "--caption-side", "32", "--judged", "2")  # fmt: skip


def steps_of(folder: Path, stage: str) -> int:
    log = folder / f"{stage}.log.jsonl"
    return len(log.read_text().splitlines()) * 10 if log.is_file() else 0


def logged(folder: Path, stage: str) -> dict[str, float]:
    last = json.loads((folder / f"{stage}.log.jsonl").read_text().splitlines()[-1])
    return {k: v for k, v in last.items() if k not in ("elapsed_s", "per_s")}


@pytest.mark.timeout(480)
def test_a_killed_run_ends_with_the_losses_of_one_that_was_not(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    options = ("all", *SMALL, "--steps", "60", "--adversarial", "--checkpoint-every-s", "1")
    whole = train(*options, "--out", str(a))
    assert whole.returncode == 0, whole.stderr
    for stage, how in (("txt2img", signal.SIGKILL), ("img2txt", signal.SIGTERM)):
        again = ["--resume"] if stage == "img2txt" else []
        running = subprocess.Popen(
            train_command(*options, "--out", str(b), *again), stdout=subprocess.DEVNULL, env=ENV
        )
        until(lambda s=stage: steps_of(b, s) >= 10, 150)  # type: ignore[misc]
        running.send_signal(how)
        assert running.wait(60) == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert (b / f"{stage}.checkpoint").exists()
    resumed = train(*options, "--out", str(b), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for stage in ("txt2img", "img2txt"):
        assert logged(a, stage) == logged(b, stage)
        assert not (b / f"{stage}.checkpoint").exists()
    assert open_bundle(a).version == open_bundle(b).version


def test_what_was_killed_before_its_first_checkpoint_is_not_done(tmp_path: Path) -> None:
    """Though an earlier run has left models in the folder."""
    options = ("all", *SMALL, "--out", str(tmp_path), "--steps")
    assert train(*options, "2").returncode == 0
    again = (*options, "1000", "--start-from", str(tmp_path))
    running = subprocess.Popen(train_command(*again), stdout=subprocess.DEVNULL, env=ENV)
    until((tmp_path / "img2txt.begun").exists, 150)
    running.kill()
    running.wait(60)
    resumed = train(*options, "2", "--start-from", str(tmp_path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    record = open_bundle(tmp_path).manifest.training
    assert [len(record[stage]) for stage in ("txt2img", "img2txt")] == [2, 2]
    assert not list(tmp_path.glob("*.begun"))


def test_all_stages_on_scenes_leave_a_bundle_with_a_model_card(tmp_path: Path) -> None:
    done = train("all", "--out", str(tmp_path), "--steps", "2", "--judged", "4", "--json")
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"] == bundle.version
    quality = bundle.manifest.quality
    assert {"objects", "relations", "backgrounds", "sharpness", "scene"} <= set(
        quality["txt2img"]["heldout"]
    )
    assert {"scene", "objects", "bleu4", "cider"} <= set(quality["img2txt"]["seen"])
    assert "facts" in quality["round_trip"]["seen"]
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert bundle.version in card
    assert "crossmodal train all" in card or "train all" in card
    for name in (
        "samples",
        "txt2img.losses",
        "txt2img.samples",
        "img2txt.losses",
        "img2txt.samples",
    ):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "args",
    [("nonsense", "--steps", "1"), ("all",), ("all", "--steps", "1", "--dataset", "mnist"),
     ("all", "--steps", "1", "--dataset", "coco:/nowhere"), ("txt2img", "--steps", "1"),
     ("img2txt", "--steps", "1"), ("all", "--steps", "1", "--text", "bert:/nowhere"),
     ("all", "--steps", "1", "--grids", "8,4"), ("all", "--steps", "1", "--width", "20"),
     ("all", "--steps", "1", "--grids", "0"), ("all", "--steps", "1", "--depth", "19"),
     ("all", "--steps", "1", "--dataset", f"coco:{COCO}", "--decoder", "scene"),
     ("word2vec", "--words", "/nowhere.bin")],
)  # fmt: skip
def test_bad_usage_is_said_before_anything_is_trained(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    done = train(*args, "--out", str(tmp_path))
    assert done.returncode in (1, 2)
    assert "rror" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: writing fails alike."""
    assert train("word2vec", *SMALL, "--out", str(tmp_path)).returncode == 0
    (tmp_path / "txt2img.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    stopped = subprocess.run(
        train_command("txt2img", *SMALL, "--steps", "3", "--out", str(tmp_path)),
        capture_output=True, text=True, timeout=200, check=False, env=ENV,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )  # fmt: skip
    assert (stopped.returncode, "output_not_writable" in stopped.stderr) == (1, True)
    assert (tmp_path / "txt2img.json").read_text() == "{}"
    assert {p for p in tmp_path.iterdir() if p.suffix != ".png"} == {
        *before, tmp_path / "txt2img.log.jsonl", tmp_path / "txt2img.begun"
    }  # fmt: skip
