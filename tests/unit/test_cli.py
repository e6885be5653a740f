"""The command line when things are wrong: one line with a code, and never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from crossmodal.cli import COMMANDS
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.settings import Settings

IMAGE = b"\x89PNG\r\n\x1a\n"


def run(tmp_path: Path, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "image.png").write_bytes(IMAGE)
    (tmp_path / "file").write_text("in the way")
    return subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", *args],
        cwd=tmp_path, env={**os.environ, "CELERY_BROKER_URL": valkey_url(free_port()), **env},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "env", "status", "code"),
    [
        (("up",), {"CELERY_BROKER_URL": "amqp://x"}, 2, "invalid_setting"),
        (("queue",), {"CELERY_BROKER_URL": "amqp://x"}, 2, "invalid_setting"),
        (("up",), {"CELERY_BROKER_URL": "redis://elsewhere.invalid:1"}, 1, "broker_unavailable"),
        (("queue",), {}, 1, "broker_unavailable"),
        (("txt2img", "a circle"), {}, 1, "broker_unavailable"),
        (("txt2img", " "), {}, 2, "invalid_prompt"),
        (("status", "x"), {"CROSSMODAL_MAX_BATCH": "many"}, 2, "invalid_setting"),
        (("worker",), {"CROSSMODAL_BUNDLE": "/none"}, 1, "bundle_not_found"),
        (("worker", "--devices", "cuda:99"), {}, 2, "invalid_setting"),
        (("worker", "--devices", "cpu,cpu"), {}, 2, "invalid_setting"),
        (("worker", "--queues", "nonsense"), {}, 2, "invalid_setting"),
        (("demo", "--out", "file"), {}, 2, "invalid_setting"),
        (("evaluate", "none"), {}, 1, "bundle_not_found"),
        (("evaluate", "--split", "odd"), {}, 2, "invalid_setting"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_code(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str], status: int, code: str
) -> None:
    done = run(tmp_path, *args, **env)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"error {code} ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["s3://[b", "ftp://x/y", "nonsense", "file://x/y", "file:x/y"])
def test_a_store_that_cannot_be_one_is_a_bad_setting(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "img2txt", "image.png", CROSSMODAL_STORAGE_URL=url)
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr


def test_a_file_of_requests_is_not_overwritten_by_their_results(tmp_path: Path) -> None:
    line = '{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
    (tmp_path / "requests.jsonl").write_text(line)
    other_name = f"../{tmp_path.name}/requests.jsonl"
    done = run(tmp_path, "batch", "run", "requests.jsonl", "-o", other_name)
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr
    assert (tmp_path / "requests.jsonl").read_text() == line


def test_requests_are_not_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run(tmp_path, "batch", "run", "pipe", "-o", "out.jsonl", "--task", "txt2img")
    assert (done.returncode, "is no file" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("args", [("nonsense",), ("txt2img",), ("status", "a", "b"), ("wait",)])
def test_bad_usage_is_two(tmp_path: Path, args: tuple[str, ...]) -> None:
    assert run(tmp_path, *args).returncode == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, name, "--help")
    assert (done.returncode, "Usage" in done.stdout) == (0, True)


def test_doctor_names_each_problem_with_its_remedy(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", CROSSMODAL_STORAGE_URL="ftp://x/y", CROSSMODAL_BUNDLE="/none")
    assert done.returncode == 1
    for subject in ("queue", "store", "bundle"):
        assert f"BAD  {subject}" in done.stdout
    for remedy in ("crossmodal up", "set CROSSMODAL_STORAGE_URL", "set CROSSMODAL_BUNDLE"):
        assert remedy in done.stdout


def test_of_files_that_cannot_all_be_submitted_the_jobs_are_told(
    tmp_path: Path, settings: Settings
) -> None:
    env = {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
        "CROSSMODAL_MAX_QUEUE_LENGTH": "1",
    }
    names = [os.fsdecode(b"\xff.png"), "b.png", "c.png"]
    for i, name in enumerate(names):
        Image.new("RGB", (16, 16), (i, i, i)).save(tmp_path / name)
    done = run(tmp_path, "img2txt", *names, "--timeout", "0", "--json", **env)
    assert done.returncode == 1, done.stderr
    first, *others = json.loads(done.stdout)
    assert (first["job"] is not None, first["failure"]["code"]) == (True, "result_timeout")
    assert [row["failure"]["code"] for row in others] == ["queue_full"] * 2
    again = run(tmp_path, "img2txt", names[0], **env)
    assert (again.returncode, "Traceback" in again.stderr) == (1, False)
    env["CROSSMODAL_MAX_QUEUE_LENGTH"] = "9"
    shown = run(tmp_path, "img2txt", *names, "--timeout", "0", **env)
    assert "\\udcff.png: result_timeout" in shown.stdout
