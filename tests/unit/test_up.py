"""`crossmodal up` when something is in its way: it says so before it starts anything."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from crossmodal.errors import InvalidSetting
from crossmodal.local import cli
from crossmodal.local.claim import AlreadyRunning, claimed
from crossmodal.local.places import Place
from crossmodal.local.stack import Stack, StackFailed
from crossmodal.local.valkey import free_port, is_local, valkey_url
from crossmodal.settings import Settings, load_settings
from tests.at_once import at_once
from tests.waiting import until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing of this user's is; and ports that nobody has."""
    monkeypatch.setattr(cli, "treat_sigterm_as_interrupt", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSMODAL_STORAGE_URL", (tmp_path / "storage").as_uri())
    monkeypatch.setenv("CELERY_BROKER_URL", valkey_url(free_port()))
    for name in ("FLOWER_PORT", "CROSSMODAL_GATEWAY_PORT"):
        monkeypatch.setenv(name, str(free_port()))
    return tmp_path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def up(*args: str, **env: str) -> Result:
    app = typer.Typer()
    app.command()(cli.up)
    return CliRunner().invoke(app, args, env=env)


def test_a_port_that_is_taken_is_said_with_its_setting(taken: int, home: Path) -> None:
    for name, setting in (("gateway", "CROSSMODAL_GATEWAY_PORT"), ("flower", "FLOWER_PORT")):
        done = up(**{setting: str(taken)})
        assert done.exit_code == 2
        told = " ".join(done.stderr.split())
        assert f"{name} cannot listen at 127.0.0.1:{taken}: Address already in use" in told
        assert (setting in told, f"--no-{name}" in told) == (True, True)
    assert not list(home.glob("crossmodal/valkey-*"))


def test_a_folder_that_is_not_served_is_said_with_the_reason(home: Path) -> None:
    (home / "models" / "empty").mkdir(parents=True)
    (home / "models" / "mine").mkdir()
    (home / "models" / "mine" / "model.py").write_text("")
    done = up(CROSSMODAL_MODELS=str(home / "models"), CROSSMODAL_STORAGE_URL="file:///proc/none")
    told = " ".join(done.stderr.split())
    assert "not serving empty: " in told
    assert "not serving mine: " in told
    assert "CROSSMODAL_ALLOW_MODEL_CODE" in told


@pytest.mark.parametrize(
    ("env", "status", "told"),
    [
        ({"CROSSMODAL_GATEWAY_PORT": "many"}, 2, "CROSSMODAL_GATEWAY_PORT is 'many'"),
        ({"CROSSMODAL_BUNDLE": "/none"}, 1, "bundle_not_found"),
        (
            {"CROSSMODAL_STORAGE_URL": "file:///proc/none"},
            2,
            "the folder /proc/none cannot be used: No such file or directory: set CROSSMODAL_",
        ),
    ],
)
def test_what_is_set_wrong_is_said_before_anything_is_started(
    env: dict[str, str], status: int, told: str, home: Path
) -> None:
    done = up(**env)
    assert (done.exit_code, told in done.stderr) == (status, True), done.stderr
    assert not list(home.glob("crossmodal/valkey-*"))


def test_one_up_a_queue_and_the_other_is_told_where_it_is() -> None:
    settings = load_settings()
    told = r"redis://here: process \d+, .* http://page"
    with claimed(settings, {"queue": "redis://here", "page": "http://page"}):
        with pytest.raises(AlreadyRunning, match=told), claimed(settings, {}):
            pytest.fail("both have it")
        with claimed(elsewhere(settings), {"queue": "redis://there"}):
            pass
    with claimed(settings, {"queue": "redis://here"}) as folder:
        assert folder.is_dir()


def elsewhere(settings: Settings) -> Settings:
    return settings.model_copy(update={"key_prefix": "other"})


def failed(folder: Path, program: str) -> Stack:
    """A stack whose only child has ended."""
    stack = Stack({}, folder)
    stack.start("child", [sys.executable, "-c", program], 5)
    until(lambda: stack.dead() is not None)
    return stack


def test_the_error_of_a_child_that_was_told_wrong_is_that_of_the_stack(tmp_path: Path) -> None:
    stack = failed(tmp_path, "print('error bad_x it is\\nwrong'); raise SystemExit(2)")
    with pytest.raises(InvalidSetting, match=r"^it is wrong$"):
        stack.check()


def test_a_child_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    stack = failed(tmp_path, "print('before'); raise ValueError('x')")
    with pytest.raises(StackFailed, match=r"ended with status 1; its log is .*child\.log") as e:
        stack.check()
    assert e.value.tail.splitlines()[-1] == "ValueError: x"


def test_a_place_is_free_until_somebody_listens_there(taken: int) -> None:
    place = Place("gateway", "CROSSMODAL_GATEWAY_", "127.0.0.1", free_port())
    place.check_free()
    assert not place.answers()
    other = Place("gateway", "CROSSMODAL_GATEWAY_", "0.0.0.0", taken)
    assert other.answers()
    assert Place("gateway", "X_", "::1", 8000).url == "http://[::1]:8000"


@at_once(
    "url, is_ours",
    [
        ("redis://localhost:6380/0", True),
        ("redis://127.0.0.1", True),
        ("redis://[::1]", False),
        ("redis://queue", False),
        ("redis://:secret@localhost", False),
        ("rediss://localhost", False),
    ],
)
def test_only_a_server_that_would_be_found_is_started(url: str, is_ours: bool) -> None:
    assert is_local(url) is is_ours
