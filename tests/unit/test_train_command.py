"""`crossmodal train` and `evaluate`: what they refuse, what they say, what they leave behind."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from crossmodal.cli import load
from crossmodal.datasets import scenes
from crossmodal.networks.bundle import MANIFEST, open_bundle, seal
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.training.cli import Judging, train
from crossmodal.training.evaluating import evaluate
from crossmodal.training.evaluation import evaluate as evaluate_bundle
from crossmodal.training.telling import how_to_serve, warnings_of
from tests.waiting import until

COCO = Path(__file__).parents[1] / "data" / "coco"
SMALL = (
    "--dataset",
    f"coco:{COCO}",
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
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}  # as much as such small models can use


@pytest.fixture(autouse=True)
def single_threaded() -> None:
    torch.set_num_threads(1)


def invoke(command: Any, *args: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return CliRunner().invoke(app, list(args))


def run(*args: str) -> Any:
    """`crossmodal train` in this process, when it is to succeed."""
    done = invoke(train, *args)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle that was trained for two steps, and what was said of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "my pictures"
    return folder, run("all", *SMALL, "--steps", "2", "--out", str(folder))


@pytest.fixture
def trained(first: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(first[0], tmp_path / "copy"))


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense", "--steps", "1"),
        ("all",),
        ("all", "--steps", "1", "--dataset", "mnist"),
        ("all", "--steps", "1", "--dataset", "coco:/nowhere"),
        ("txt2img", "--steps", "1"),
        ("img2txt", "--steps", "1"),
        ("all", "--steps", "1", "--text", "bert:/nowhere"),
        ("all", "--steps", "1", "--grids", "8,4"),
        ("all", "--steps", "1", "--width", "20"),
        ("all", "--steps", "1", "--grids", "0"),
        ("all", "--steps", "1", "--depth", "19"),
        ("all", "--steps", "1", "--dataset", f"coco:{COCO}", "--decoder", "scene"),
        ("word2vec", "--words", "/nowhere.bin"),
        ("all", "--steps", "1", "--judged", "0"),
        ("all", "--steps", "1", "--name", ""),
        ("all", "--steps", "1", "--name", "a/b"),
        ("all", "--steps", "1", "--name", "x" * 65),
        ("word2vec", "--name", "mine"),
    ],
)
def test_bad_usage_is_said_before_anything_is_trained(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    done = invoke(train, *args, "--out", str(tmp_path))
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit)
    assert "rror" in done.stderr
    assert not list(tmp_path.iterdir())


def test_options_are_looked_at_before_the_data(tmp_path: Path) -> None:
    done = invoke(
        train,
        "all",
        "--steps",
        "1",
        "--dataset",
        "coco:/nowhere",
        "--width",
        "20",
        "--out",
        str(tmp_path),
    )
    assert "--width 20" in done.stderr


def test_a_folder_that_cannot_name_a_bundle_asks_for_a_name(tmp_path: Path) -> None:
    done = invoke(train, "all", "--steps", "1", "--out", str(tmp_path / "@home"))
    assert done.exit_code == 2
    assert "'@home'" in done.stderr
    assert "--name" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "made", "said"),
    [
        ("all", ("txt2img", "img2txt"), "holds a trained bundle already: resume it with --resume"),
        ("all", ("txt2img",), "holds a trained txt2img already: resume it with --resume"),
        (
            "word2vec",
            ("img2txt",),
            "holds img2txt trained on its word vectors: choose another --out",
        ),
    ],
)
def test_models_are_not_left_with_new_words(
    tmp_path: Path, what: str, made: tuple[str, ...], said: str
) -> None:
    for stage in made:
        (tmp_path / f"{stage}.json").write_text("{}")
    done = invoke(train, what, "--steps", "1", "--dataset", "coco:/nowhere", "--out", str(tmp_path))
    assert (done.exit_code, f"{tmp_path} {said}" in done.stderr) == (2, True), done.stderr
    assert len(list(tmp_path.iterdir())) == len(made)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_is_whole_in_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    command = load(name)
    app = typer.Typer(add_completion=False)
    function: Any = {"train": train, "evaluate": evaluate}[name]
    app.command()(function)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["--help"]).stdout)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o[:2] == "--"}
    assert options <= set(re.findall(r"--[\w-]+", shown))


# -- what is said ----------------------------------------------------------------------------


def test_what_takes_how_long_is_said_first(first: tuple[Path, Any]) -> None:
    said = first[1].stderr.splitlines()[1]
    assert said.startswith("plan: word2vec (")
    assert said.endswith(
        "then txt2img (2 steps), then img2txt (2 steps), then judging "
        "(by 2 examples of each split; time unknown until it starts)"
    )


def test_judging_takes_a_share_of_the_minutes_or_as_many_as_are_asked_for() -> None:
    def said(judged: int | None, minutes: float | None) -> str:
        return Judging.of(judged, minutes).said(scenes.Scenes())

    assert said(None, 2) == "judging (about 30 s at most, by up to 500 examples of each split)"
    assert "about 150 s at most" in said(None, 10)
    assert "about 60 s at most" in said(None, None)
    assert "(by 7 examples of each split; time unknown" in said(7, 10)


def test_nothing_is_promised_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    done = invoke(train, "all", "--minutes", "8", "--out", str(tmp_path / "in the way"))
    assert "output_not_writable" in done.stderr
    assert "plan:" not in done.stderr


def test_judging_is_counted_in_a_pipe_too(first: tuple[Path, Any]) -> None:
    assert first[1].stderr.count("judging: 2 of 2 after ") == 1


def test_the_last_line_serves_the_bundle(first: tuple[Path, Any]) -> None:
    folder, done = first
    setting, *command = shlex.split(done.stdout.splitlines()[-1])
    assert setting == f"CROSSMODAL_BUNDLE={folder.resolve()}"
    assert command == ["crossmodal", "up"]


def test_a_relative_folder_is_served_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert how_to_serve(Path("runs/a")) == f"CROSSMODAL_BUNDLE={tmp_path}/runs/a crossmodal up"


def test_captions_of_which_none_is_right_are_warned_of(first: tuple[Path, Any]) -> None:
    assert "warning img2txt, val: no caption" in first[1].stderr


GOOD = {
    "dataset": "scenes",
    "txt2img": {"seen": {"scene": 0.9, "sharpness": 1.0}},
    "img2txt": {"seen": {"scene": 0.8, "bleu4": 0.7}},
}


@pytest.mark.parametrize(
    ("task", "splits", "warning"),
    [
        ("txt2img", {"seen": {"scene": 0.0}, "pairs": {"scene": 0.0}}, "seen and pairs: no pic"),
        ("txt2img", {"val": {"sharpness": 0.0}}, "no picture has an edge"),
        ("img2txt", {"seen": {"scene": 0.1}, "pairs": {"scene": 0.0}}, "img2txt, pairs: no cap"),
        ("img2txt", {"val": {"bleu4": 0.0}}, "four consecutive words"),
        ("img2txt", {"val": {"bleu4": 0.5, "cider": float("nan")}}, "cider is not finite"),
        ("img2txt", {}, "nothing was measured, as scenes has no split"),
    ],
)
def test_figures_that_are_nothing_are_warned_of(
    task: str, splits: dict[str, dict[str, float]], warning: str
) -> None:
    [found] = warnings_of({**GOOD, task: splits})
    assert warning in found


def test_figures_that_are_something_are_not_warned_of() -> None:
    assert warnings_of(GOOD) == []


def test_judging_ends_when_its_time_is_over() -> None:
    told: list[tuple[int, int]] = []
    found = evaluate_bundle(
        open_bundle(SHIPPED_BUNDLE),
        scenes.Scenes(),
        400,
        ["seen", "pairs"],
        0.0,
        lambda done, total: told.append((done, total)),
    )
    assert told == [(0, 800), (1, 800), (2, 800)]
    assert found["count"] == 1
    assert found["txt2img"]["seen"]["objects"] == 1


def test_evaluate_counts_too() -> None:
    done = invoke(evaluate, "--split", "seen", "--count", "5", "--json")
    assert done.exit_code == 0, done.output
    assert "judging: 5 of 5 after" in done.stderr
    assert json.loads(done.stdout)["count"] == 5


# -- what is left ----------------------------------------------------------------------------


def test_a_bundle_is_called_as_its_folder_is(first: tuple[Path, Any]) -> None:
    assert open_bundle(first[0]).name == "my pictures"
    assert (first[0] / "MODEL_CARD.md").read_text().startswith("# Model card: my pictures")


def test_a_bundle_is_called_as_was_asked_and_keeps_its_name(trained: Path) -> None:
    again = ("img2txt", *SMALL, "--steps", "1", "--out", str(trained))
    run(*again, "--name", "mine")
    assert open_bundle(trained).name == "mine"
    run(*again)
    assert open_bundle(trained).name == "mine"


def test_what_a_bundle_lacks_still_is_said(tmp_path: Path) -> None:
    done = run("word2vec", *SMALL, "--out", str(tmp_path))
    assert "no bundle yet: train txt2img and img2txt" in done.stderr
    assert "CROSSMODAL_BUNDLE" not in done.stdout


def test_a_bundle_that_was_not_judged_is_judged_on_resuming(trained: Path) -> None:
    m = open_bundle(trained).manifest
    seal(trained, m.name, m.dataset, m.training, {})
    options = ("all", *SMALL, "--steps", "2", "--out", str(trained), "--resume")
    assert "judging: 2 of 2" in run(*options).stderr
    assert open_bundle(trained).manifest.quality["count"] == 2
    done = run(*options)
    assert "judging" not in done.stderr
    assert done.stdout.strip() == how_to_serve(trained)


def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: writing fails alike."""
    run("word2vec", *SMALL, "--out", str(tmp_path))
    (tmp_path / "txt2img.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        stopped = invoke(train, "txt2img", *SMALL, "--steps", "3", "--out", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (stopped.exit_code, "output_not_writable" in stopped.stderr) == (1, True)
    assert (tmp_path / "txt2img.json").read_text() == "{}"
    assert {p for p in tmp_path.iterdir() if p.suffix != ".png"} == {
        *before,
        tmp_path / "txt2img.log.jsonl",
        tmp_path / "txt2img.begun",
    }


def test_all_stages_on_scenes_leave_a_bundle_with_a_model_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "CAPTIONS", 500)
    done = run(
        "all",
        "--out",
        str(tmp_path),
        "--name",
        "tiny",
        "--steps",
        "2",
        "--judged",
        "4",
        "--batch",
        "4",
        "--side",
        "64",
        "--caption-side",
        "32",
        "--json",
    )
    bundle = open_bundle(tmp_path)
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["version"], told["name"]) == (bundle.version, "tiny")
    assert told["warnings"] == warnings_of(bundle.manifest.quality) != []
    assert told["serve"] == how_to_serve(tmp_path)
    quality = bundle.manifest.quality
    assert {"objects", "relations", "backgrounds", "sharpness", "scene"} <= set(
        quality["txt2img"]["relations"]
    )
    assert {"scene", "objects", "bleu4", "cider"} <= set(quality["img2txt"]["seen"])
    assert "facts" in quality["round_trip"]["seen"]
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert bundle.version in card
    assert "`crossmodal " in card
    for name in (
        "samples",
        "txt2img.losses",
        "txt2img.samples",
        "img2txt.losses",
        "img2txt.samples",
    ):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


# -- what is killed --------------------------------------------------------------------------


def started(*args: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "crossmodal.cli", "train", *args], stdout=subprocess.DEVNULL, env=ENV
    )


def steps_of(folder: Path, stage: str) -> int:
    log = folder / f"{stage}.log.jsonl"
    return len(log.read_text().splitlines()) * 10 if log.is_file() else 0


def logged(folder: Path, stage: str) -> dict[str, float]:
    last = json.loads((folder / f"{stage}.log.jsonl").read_text().splitlines()[-1])
    return {k: v for k, v in last.items() if k not in ("elapsed_s", "per_s")}


@pytest.mark.slow
def test_a_killed_run_ends_with_the_losses_of_one_that_was_not(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    # Large enough a step for the run not to be over before it is killed.
    larger = ("--batch", "4", "--caption-stages", "3", "--steps", "40", "--adversarial")
    options = ("all", *SMALL, *larger, "--checkpoint-every-s", "1")
    for stage, how in (("txt2img", signal.SIGKILL), ("img2txt", signal.SIGTERM)):
        again = ["--resume"] if stage == "img2txt" else []
        running = started(*options, "--out", str(b), *again)
        until(lambda s=stage: steps_of(b, s) >= 10, 150)  # type: ignore[misc]
        running.send_signal(how)
        assert running.wait(60) == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        assert (b / f"{stage}.checkpoint").exists()
    run(*options, "--out", str(b), "--resume")
    run(*options, "--out", str(a))
    for stage in ("txt2img", "img2txt"):
        assert logged(a, stage) == logged(b, stage)
        assert not (b / f"{stage}.checkpoint").exists()
    assert open_bundle(a).version == open_bundle(b).version


@pytest.mark.slow
def test_what_was_killed_before_its_first_checkpoint_is_not_done(trained: Path) -> None:
    """Though an earlier run has left models in the folder."""
    options = ("all", *SMALL, "--out", str(trained), "--start-from", str(trained), "--steps")
    running = started(*options, "1000")
    until((trained / "img2txt.begun").exists, 150)
    running.kill()
    running.wait(60)
    run(*options, "2", "--resume")
    record = json.loads((trained / MANIFEST).read_text())["training"]
    assert [len(record[stage]) for stage in ("txt2img", "img2txt")] == [2, 2]
    assert not list(trained.glob("*.begun"))
