"""The command line when things are wrong: one line with a code, and never a traceback."""

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from crossmodal.cli import commands, load
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.settings import Settings
from tests.commands import Done, run_command
from tests.workers import environment

IMAGE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: with a picture that is broken and a file that is in the way."""
    (tmp_path / "image.png").write_bytes(IMAGE)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str, **env: str) -> Done:
    """A command that finds no Redis, unless it is told where one is."""
    return run_command({"CELERY_BROKER_URL": valkey_url(free_port()), **env}, *args)


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
        (("nonsense",), {}, 2, "bad_usage"),
        (("txt2img",), {}, 2, "bad_usage"),
        (("status", "a", "b"), {}, 2, "bad_usage"),
        (("wait",), {}, 2, "bad_usage"),
        (("jobs", "--state", "odd"), {}, 2, "bad_usage"),
        (("batch", "run"), {}, 2, "bad_usage"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_code(
    args: tuple[str, ...], env: dict[str, str], status: int, code: str
) -> None:
    done = run(*args, **env)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.startswith(f"error {code} ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code", "retryable"),
    [
        (("queue", "--json"), "broker_unavailable", True),
        (("txt2img", "--json", " "), "invalid_prompt", False),
        (("txt2img", "--json"), "bad_usage", False),
        (("jobs", "--nonsense", "--json"), "bad_usage", False),
    ],
)
def test_with_json_an_error_is_json(args: tuple[str, ...], code: str, retryable: bool) -> None:
    done = run(*args)
    error = json.loads(done.stderr)
    assert (done.stdout, set(error)) == ("", {"code", "message", "retryable"})
    assert (error["code"], error["retryable"]) == (code, retryable)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("jobs", "--state", "odd"), "Invalid value for '--state': 'odd' is not one of 'queued',"),
        (("jobs", "--limit", "x"), "Invalid value for '--limit': 'x' should be a valid integer: "),
        (("txt2img", "a", "-n", "99"), ": '99' should be less than or equal to 16: see "),
        (("txt2img", "a", "--temperature", "a: Value error, b"), ": 'a: Value error, b' should "),
    ],
)
def test_bad_usage_is_said_with_the_value_and_plainly(args: tuple[str, ...], message: str) -> None:
    assert message in run(*args).stderr


def test_who_refuses_is_not_said_to_be_slow() -> None:
    error = run("queue").stderr
    assert "does not answer: Connection refused. Start one with" in error


def test_no_message_has_two_full_stops() -> None:
    for url in ("redis://127.0.0.1:1", "redis://elsewhere.invalid:1", "rediss://127.0.0.1:1"):
        assert ".." not in run("queue", CELERY_BROKER_URL=url).stderr


def test_bytes_are_not_shown_as_python_writes_them(folder: Path, settings: Settings) -> None:
    (folder / "notes.png").write_text("no image")
    done = run_command(environment(settings), "img2txt", "notes.png")
    assert "it starts with 'no image'. Send" in done.stdout


@pytest.mark.parametrize("url", ["s3://[b", "ftp://x/y", "nonsense", "file://x/y", "file:x/y"])
def test_a_store_that_cannot_be_one_is_a_bad_setting(url: str) -> None:
    done = run("img2txt", "image.png", CROSSMODAL_STORAGE_URL=url)
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr


def test_a_file_of_requests_is_not_overwritten_by_their_results(folder: Path) -> None:
    line = '{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
    (folder / "requests.jsonl").write_text(line)
    done = run("batch", "run", "requests.jsonl", "-o", f"../{folder.name}/requests.jsonl")
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr
    assert (folder / "requests.jsonl").read_text() == line


def test_requests_are_not_read_from_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    done = run("batch", "run", "pipe", "-o", "out.jsonl", "--task", "txt2img")
    assert (done.returncode, "not a regular file" in done.stderr) == (2, True), done.stderr


def test_every_command_has_help_that_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in commands():
        for sub in ((), *((sub,) for sub in getattr(load(name), "commands", ()))):
            done = run(name, *sub, "--help")
            assert (done.returncode, "Usage" in done.stdout) == (0, True), (name, sub)
            assert max(map(len, done.stdout.splitlines())) <= 80, (name, sub)
            assert not re.search(r"\S…", done.stdout), (name, sub)  # is cut


def test_json_has_bytes_that_are_no_text_escaped() -> None:
    done = run("img2txt", os.fsdecode(b"\xff.png"), "--json")
    assert (done.stderr, "\\udcff.png" in done.stdout) == ("", True)
    assert json.loads(done.stdout.encode())[0]["file"] == "\udcff.png"


def test_what_a_terminal_has_not_is_escaped() -> None:
    run("--version")
    assert "é \ud800 \udcff".encode("ascii", "crossmodal") == rb"\xe9 \ud800 " + b"\xff"


def test_a_backslash_in_an_id_is_not_doubled(settings: Settings) -> None:
    for command in (("status",), ("batch", "status"), ("dead", "show"), ("keys", "revoke")):
        done = run_command(environment(settings), *command, r"b\xff")
        assert (r" 'b\xff' " in done.stderr.replace(":", " "), done.stdout) == (True, ""), (
            done.stderr
        )


def test_doctor_names_each_problem_with_its_remedy() -> None:
    done = run("doctor", CROSSMODAL_STORAGE_URL="ftp://x/y", CROSSMODAL_BUNDLE="/none")
    assert done.returncode == 1
    for subject in ("queue", "store", "bundle"):
        assert f"BAD  {subject}" in done.stdout
    for remedy in ("crossmodal up", "set CROSSMODAL_STORAGE_URL", "set CROSSMODAL_BUNDLE"):
        assert remedy in done.stdout


def test_of_files_that_cannot_all_be_submitted_the_jobs_are_told(
    folder: Path, settings: Settings
) -> None:
    env = environment(settings) | {"CROSSMODAL_MAX_QUEUE_LENGTH": "1"}
    names = [os.fsdecode(b"\xff.png"), "b.png", "c.png"]
    for i, name in enumerate(names):
        Image.new("RGB", (16, 16), (i, i, i)).save(folder / name)
    done = run("img2txt", *names, "--timeout", "0", "--json", **env)
    assert done.returncode == 1, done.stderr
    first, *others = json.loads(done.stdout)
    assert (first["job"] is not None, first["failure"]["code"]) == (True, "result_timeout")
    assert [row["failure"]["code"] for row in others] == ["queue_full"] * 2
    again = run("img2txt", names[0], **env)
    assert (again.returncode, "queue_full" in again.stderr) == (1, True)
    env["CROSSMODAL_MAX_QUEUE_LENGTH"] = "9"
    shown = run("img2txt", *names, "--timeout", "0", **env)
    assert f"\n{names[0]}: result_timeout" in f"\n{shown.stdout}"
