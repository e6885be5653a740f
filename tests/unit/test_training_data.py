"""What a run is trained on and begins with: data sets that move or change, other words, signals."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossmodal.datasets.registry import open_dataset
from crossmodal.datasets.scenes import Scenes
from crossmodal.errors import CheckpointMismatch, TrainingStopped
from crossmodal.networks.bundle import MANIFEST
from crossmodal.networks.captioner import Captioner, CaptionerConfig
from crossmodal.networks.weights import save_model
from crossmodal.training import cli
from crossmodal.training.batches import Source, batches
from crossmodal.training.evaluating import evaluate
from crossmodal.training.inheritance import OF_WORDS, take_over
from crossmodal.training.loop import Budget
from crossmodal.training.pictures import draw_grid
from crossmodal.training.stages import Options, Run, train_img2txt, train_words
from tests.unit.test_train_command import COCO, ENV, invoke
from tests.waiting import until

SMALL = (
    "--batch",
    "2",
    "--side",
    "32",
    "--grids",
    "2,4",
    "--width",
    "16",
    "--caption-side",
    "32",
    "--caption-stages",
    "1",
    "--judged",
    "2",
)


@pytest.fixture(autouse=True)
def single_threaded() -> None:
    torch.set_num_threads(1)


def train(data: Path, out: Path, *args: str) -> Any:
    return invoke(cli.train, *args, "--dataset", f"coco:{data}", "--out", str(out), *SMALL)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set `data`, and a bundle `bundle` that was trained on it for two steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("first")
    shutil.copytree(COCO, folder / "data")
    done = train(folder / "data", folder / "bundle", "all", "--steps", "2")
    assert done.exit_code == 0, (done.output, done.exception)
    return folder


@pytest.fixture
def world(first: Path, tmp_path: Path) -> Path:
    """A copy of it, in another place."""
    return Path(shutil.copytree(first, tmp_path / "world"))


def say(folder: Path, texts: Sequence[str], half: str = "train") -> None:
    """Have each picture of a data set captioned by `texts` alone."""
    path = folder / "annotations" / f"captions_{half}2017.json"
    found = json.loads(path.read_text())
    found["annotations"] = [
        {"image_id": image["id"], "caption": text} for image in found["images"] for text in texts
    ]
    path.write_text(json.dumps(found))


def break_pictures(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:40])


# -- a data set is its content ---------------------------------------------------------------


def captioning(data: Path, out: Path, **more: Any) -> Run:
    options = Options(caption_side=32, caption_stages=1, batch=2)
    opened = open_dataset(f"coco:{data}")
    return Run(opened, out, Budget(steps=2), 1, lambda *_: None, options, **more)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A folder with a data set, and with a run on it that was stopped at once."""
    shutil.copytree(COCO, tmp_path / "data")
    (tmp_path / "out").mkdir()
    train_words(captioning(tmp_path / "data", tmp_path / "out"))
    with pytest.raises(TrainingStopped):
        train_img2txt(captioning(tmp_path / "data", tmp_path / "out", is_stopped=lambda: True))
    return tmp_path


def test_a_run_goes_on_with_a_data_set_that_was_moved(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stopped / "data").rename(stopped / "moved")
    monkeypatch.chdir(stopped)
    train_img2txt(captioning(Path("moved"), stopped / "out", resume=True))
    assert (stopped / "out" / "img2txt.safetensors").is_file()


def test_a_run_does_not_go_on_with_other_captions(stopped: Path) -> None:
    path = stopped / "data" / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace(" a ", " the ", 1))
    with pytest.raises(CheckpointMismatch, match="its data set had other captions or pictures"):
        train_img2txt(captioning(stopped / "data", stopped / "out", resume=True))


def test_a_bundle_is_measured_by_its_data_wherever_it_lies(world: Path) -> None:
    (world / "data").rename(world / "moved")
    args = (str(world / "bundle"), "--dataset", f"coco:{world / 'moved'}", "--count", "1")
    done = invoke(evaluate, *args, "--save")
    assert done.exit_code == 0, done.output


def test_changed_captions_are_noticed(world: Path) -> None:
    say(world / "data", ["something else"])
    named = ("--dataset", f"coco:{world / 'data'}", "--count", "1")
    saved = invoke(evaluate, str(world / "bundle"), *named, "--save")
    assert (saved.exit_code, "was not trained on" in saved.stderr) == (2, True), saved.stderr
    told = invoke(evaluate, str(world / "bundle"), *named)
    assert "has other captions or pictures than bundle was trained on" in told.stderr
    manifest = json.loads((world / "bundle" / MANIFEST).read_text())
    manifest["dataset"] = f"coco:{world / 'data'}"
    (world / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    done = invoke(evaluate, str(world / "bundle"), "--count", "1")
    assert "has other captions or pictures than bundle was trained on" in done.stderr


def test_a_data_set_that_has_gone_is_asked_for(world: Path) -> None:
    manifest = json.loads((world / "bundle" / MANIFEST).read_text())
    manifest["dataset"] = f"coco:{world / 'gone'}"
    (world / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    done = invoke(evaluate, str(world / "bundle"))
    assert done.exit_code == 1
    assert "if it has been moved, pass its new location by --dataset" in done.stderr


# -- nothing measured ------------------------------------------------------------------------


def test_where_no_picture_can_be_read_nothing_is_measured(world: Path) -> None:
    break_pictures(world / "data" / "val2017")
    done = invoke(evaluate, str(world / "bundle"), "--dataset", f"coco:{world / 'data'}")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "warning img2txt, val: nothing was measured, as no picture can be read" in done.stderr
    assert "data_invalid" in done.stderr


def test_a_bundle_that_could_not_be_judged_is_whole_and_not_a_success(world: Path) -> None:
    break_pictures(world / "data" / "val2017")
    done = train(world / "data", world / "bundle", "img2txt", "--steps", "1")
    assert done.exit_code == 1
    assert "warning txt2img, val: nothing was measured" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("CROSSMODAL_BUNDLE=")


def test_one_picture_is_trained_on_and_measures_nothing(tmp_path: Path) -> None:
    shutil.copytree(COCO, tmp_path / "data")
    (tmp_path / "data" / "annotations" / "captions_val2017.json").unlink()
    path = tmp_path / "data" / "annotations" / "captions_train2017.json"
    found = json.loads(path.read_text())
    found["images"] = found["images"][:1]
    path.write_text(json.dumps(found))
    deep = ("--caption-stages", "4")  # of which a picture is one cell
    done = train(tmp_path / "data", tmp_path / "out", "all", "--steps", "2", *deep)
    assert done.exit_code == 1, (done.output, done.exception)
    assert "warning img2txt: nothing was measured" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("CROSSMODAL_BUNDLE=")
    measured = invoke(evaluate, str(tmp_path / "out"))
    assert (measured.exit_code, measured.stdout) == (1, "")
    assert "has no split to evaluate on" in measured.stderr


# -- words -----------------------------------------------------------------------------------


def test_it_is_said_how_many_of_the_captions_words_have_vectors(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("the 1 2 3\na 4 5 6\nred 7 8 9\nblue nan 1 2\n")
    words = ("--words", str(tmp_path / "glove.txt"))
    done = train(COCO, tmp_path / "out", "word2vec", *words)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "glove.txt: 1 row is skipped: not 3 finite numbers" in done.stderr
    assert "3 of the " in done.stderr
    assert "words of the captions have vectors" in done.stderr


def test_captions_in_thai_are_warned_of(world: Path) -> None:
    say(world / "data", ["แมวสีแดง"])
    done = train(world / "data", world / "out", "word2vec")
    assert "captions are in Thai, Lao, Khmer or Burmese" in done.stderr


def test_captions_in_scripts_that_a_font_lacks_are_drawn_without_a_word(tmp_path: Path) -> None:
    """Warnings are errors in tests."""
    picture = np.zeros((8, 8, 3), np.uint8)
    draw_grid([[picture, picture]], [["लाल बिल्ली", "แมวสีแดง"]], tmp_path / "grid.png")
    assert (tmp_path / "grid.png").is_file()


# -- weights to begin with -------------------------------------------------------------------


def test_a_bundle_of_other_words_is_begun_with(world: Path) -> None:
    say(world / "data", ["a large red zebra", "a gnu beside it"])
    begun = ("all", "--steps", "1", "--start-from", str(world / "bundle"))
    done = train(world / "data", world / "out", *begun)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "4 of its 8 words are those of" in done.stderr
    words = json.loads((world / "out" / "img2txt.json").read_text())["words"]
    assert {"zebra", "gnu"} <= set(words)


def config(*words: str, **more: Any) -> CaptionerConfig:
    return CaptionerConfig(("<end>", *words), side=32, stages=1, width=16, embedding=8, **more)


def test_what_is_known_of_a_word_goes_with_it(tmp_path: Path) -> None:
    old, new = Captioner(config("red", "dog", "cat")), Captioner(config("zebra", "cat", "red"))
    save_model(tmp_path, "img2txt", old)
    fresh = new.decoder.embed.weight[1].clone()
    assert take_over(new, tmp_path) == 3
    for name in OF_WORDS:
        mine, its = new.state_dict()[name], old.state_dict()[name]
        assert torch.allclose(mine[[0, 2, 3]], its[[0, 3, 1]], atol=1e-2)
    assert torch.equal(new.decoder.embed.weight[1], fresh)
    assert torch.allclose(new.decoder.query.weight, old.decoder.query.weight, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--width", "32"), "its txt2img has another architecture (width 16, not 32)"),
        (("--caption-stages", "2"), "its img2txt has another architecture (stages 1, not 2)"),
        (("--depth", "34"), "its img2txt has another architecture (depth 18, not 34)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_first(
    world: Path, options: tuple[str, ...], said: str
) -> None:
    done = invoke(
        cli.train,
        "all",
        "--dataset",
        f"coco:{world / 'data'}",
        *SMALL,
        *options,
        "--steps",
        "1",
        "--start-from",
        str(world / "bundle"),
        "--out",
        str(world / "out"),
    )
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert not (world / "out").exists()


def test_captions_of_which_no_word_is_known_are_refused_first(world: Path) -> None:
    say(world / "data", ["qwerty uiop"])
    begun = ("all", "--steps", "1", "--start-from", str(world / "bundle"))
    done = train(world / "data", world / "out", *begun)
    assert (done.exit_code, "vocabulary has no word" in done.stderr) == (2, True), done.stderr


def test_vectors_that_a_model_does_not_read_are_refused_first(world: Path) -> None:
    say(world / "data", ["another caption"])
    assert train(world / "data", world / "out", "word2vec").exit_code == 0
    begun = ("txt2img", "--steps", "1", "--start-from", str(world / "bundle"))
    done = train(world / "data", world / "out", *begun)
    assert (done.exit_code, "trained on other vectors" in done.stderr) == (2, True), done.stderr


def test_a_folder_without_the_stage_is_refused_first(world: Path) -> None:
    (world / "bundle" / "img2txt.safetensors").unlink()
    begun = ("all", "--steps", "1", "--start-from", str(world / "bundle"))
    done = train(world / "data", world / "out", *begun)
    assert (done.exit_code, "no img2txt.safetensors in it" in done.stderr) == (2, True)


# -- signals ---------------------------------------------------------------------------------


def test_processes_that_prepare_batches_outlive_a_signal_to_their_group() -> None:
    stream = batches(Source(Scenes(64), side=64, size=2, seed=1), 0)
    next(stream)
    children = multiprocessing.active_children()
    assert children
    for child in children:
        child.terminate()  # SIGTERM
    assert len([next(stream) for _ in range(20)]) == 20  # more than had been made before
    stream.close()
    until(lambda: not any(child.is_alive() for child in children), 30)


def test_a_signal_that_comes_twice_at_once_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with cli.told_to_stop() as is_stopped:
        assert not is_stopped()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert is_stopped()
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_judging_that_is_told_to_end_leaves_the_bundle(
    world: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def told_twice(*_: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            if number == signal.SIGTERM:
                signal.raise_signal(number)

    monkeypatch.setattr(cli, "seal_if_complete", told_twice)
    done = train(world / "data", world / "bundle", "img2txt", "--steps", "1")
    assert done.exit_code == 130
    assert "stopped while judging; the bundle is whole" in done.stderr
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_a_signal_to_the_group_leaves_a_checkpoint(tmp_path: Path) -> None:
    """As `timeout`, Slurm and systemd send it."""
    command = [
        sys.executable,
        "-m",
        "crossmodal.cli",
        "train",
        "all",
        "--dataset",
        f"coco:{COCO}",
        "--out",
        str(tmp_path / "out"),
        *SMALL,
        "--steps",
        "100000",
    ]
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=said, env=ENV, start_new_session=True
        )
    log = tmp_path / "out" / "txt2img.log.jsonl"
    until(lambda: log.is_file() and len(log.read_text().splitlines()) > 2, 150)
    os.killpg(running.pid, signal.SIGTERM)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 130
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert "continue with --resume" in (tmp_path / "said").read_text()
    steps = torch.load(tmp_path / "out" / "txt2img.checkpoint", weights_only=True)["progress"][
        "step"
    ]
    assert steps > 20
