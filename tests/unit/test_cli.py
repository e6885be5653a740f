"""The command line when things are wrong: one line with a code, and never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal.cli import COMMANDS
from crossmodal.local.valkey import free_port, valkey_url

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


@pytest.mark.parametrize("url", ["s3://[b", "ftp://x/y", "nonsense"])
def test_a_store_that_cannot_be_one_is_a_bad_setting(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "img2txt", "image.png", CROSSMODAL_STORAGE_URL=url)
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr


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
