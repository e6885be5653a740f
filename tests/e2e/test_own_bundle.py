"""From a data set on the disk to pictures and captions out of a queue, without touching code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal.local.stack import Stack
from crossmodal.networks.bundle import open_bundle
from producer import Client
from tests.bert import make_bert
from tests.conftest import settings_of, stack_environment
from tests.servers import start_server
from tests.unit.test_text import google_file

DATA = Path(__file__).parents[1] / "data"
SMALL = ("--steps", "3", "--batch", "4", "--side", "32", "--width", "16", "--judged", "2")
PROMPT = "a small red circle on a white background"


def trained(folder: Path, *options: str) -> Path:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "crossmodal.cli",
            "train",
            "all",
            "--out",
            str(folder),
            *SMALL,
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("dataset", ["coco:coco", "flickr30k:flickr30k", "bert"])
def test_a_bundle_trained_on_files_is_served_at_once(tmp_path: Path, dataset: str) -> None:
    kind, _, name = dataset.partition(":")
    if kind == "bert":
        (tmp_path / "bert").mkdir()
        options = [
            "--dataset",
            f"flickr30k:{DATA / 'flickr30k-csv'}",
            "--text",
            f"bert:{make_bert(tmp_path / 'bert')}",
        ]
    elif kind == "flickr30k":  # with vectors that lack common words, as GoogleNews does
        vectors = google_file(tmp_path / "g.bin", ["red", "circle", "white", "background", "small"])
        options = ["--dataset", f"{kind}:{DATA / name}", "--words", str(vectors)]
    else:
        options = ["--dataset", f"{kind}:{DATA / name}"]
    bundle = open_bundle(trained(tmp_path / "bundle", *options))
    assert {"a", "of", "to"} <= set(bundle.config("img2txt.json")["words"])
    server = start_server(tmp_path / "valkey")
    env = stack_environment(server.port, tmp_path) | {"CROSSMODAL_BUNDLE": str(bundle.folder)}
    ready = tmp_path / "ready"
    with (tmp_path / "log").open("wb") as log, Stack(env, log) as stack:
        stack.start_worker(["--devices", "cpu", "--concurrency", "2"], 60, ready)
        stack.wait_ready(ready)
        with Client(settings_of(env)) as client:
            drawn = client.txt2img(PROMPT, seed=1, count=2).result(timeout_s=60)
            png = client.read(drawn.images[0])
            described = client.img2txt(png).result(timeout_s=60)
    server.stop()
    assert drawn.bundle_version == described.bundle_version == bundle.version
    assert (drawn.model, len(drawn.images)) == (bundle.name, 2)
    assert (drawn.images[0].width, drawn.images[0].height) == (32, 32)
    assert len(described.captions) == 1
