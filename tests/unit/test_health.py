"""What a probe and the supervisor make of the files that workers touch."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from crossmodal.cli import load
from crossmodal.errors import InvalidSetting
from crossmodal.processes import Child
from crossmodal.settings import Settings
from tests.fakes.worker import served
from tests.waiting import until
from worker import host_process
from worker.devices import Device
from worker.health import answers, examine
from worker.host_process import HostProcess
from worker.supervisor import make_folder, served_models
from worker.watched import BACKOFF_MAX_S, HEALTHY_AFTER_S, Watched


def supervisor_at(run_dir: Path, *options: str) -> "subprocess.Popen[str]":
    """Another process that holds a folder as a supervisor does, until its input ends.

    With any option its worker needs no models.
    """
    program = (
        "import sys; from pathlib import Path; "
        "from worker.supervisor import make_folder; "
        "from worker.health import UnitFiles, WorkerFiles, lock; "
        "folder = make_folder(Path(sys.argv[1])); "
        "held = lock(folder); files = WorkerFiles(UnitFiles(folder, 'cpu'), 'cpu'); "
        "files.make_mark(needs_models=len(sys.argv) < 3); "
        "print(folder, flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(run_dir), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_folders_count_for_as_long_as_their_supervisor_lives(
    settings: Settings, tmp_path: Path
) -> None:
    others = {"12-backup", "99999999999999999999", "notes"}
    for name in others:
        (tmp_path / name).mkdir()
    here = settings.model_copy(update={"run_dir": tmp_path})
    assert examine(here) == []
    with supervisor_at(tmp_path) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        [unit] = examine(here)
        assert (unit.worker, unit.live, unit.ready) == ("cpu", False, False)
        mine = make_folder(tmp_path)
        assert folder.exists()
    assert examine(here) == []  # whatever process has its number by now
    assert make_folder(tmp_path) == mine
    assert {path.name for path in tmp_path.iterdir()} == others | {str(os.getpid())}


@pytest.mark.parametrize(("options", "is_ready"), [((), False), (("without models",), True)])
def test_only_a_worker_of_models_waits_for_a_model_host(
    options: tuple[str, ...], is_ready: bool, settings: Settings, tmp_path: Path
) -> None:
    here = settings.model_copy(update={"run_dir": tmp_path})
    with supervisor_at(tmp_path, *options) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        for name in ("cpu.worker", "cpu.ready"):
            (folder / name).touch()
        [unit] = examine(here)
        assert (unit.live, unit.ready) == (True, is_ready)


def test_a_run_dir_without_room_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="too long"):
        make_folder(tmp_path / ("x" * 100))


def test_a_bad_setting_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_HEARTBEAT_S", "1")
    with pytest.raises(SystemExit) as caught:
        load("health")(["--live"])
    assert caught.value.code == 2


def test_a_folder_that_others_may_write_to_is_refused(short_path: Path) -> None:
    shared = short_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InvalidSetting, match="others may write"):
        make_folder(shared / "run")


def test_a_process_that_never_moved_is_silent_once_it_should_have_started(tmp_path: Path) -> None:
    watched = Watched(Child("sleeper", [sys.executable, "-c", "input()"], stdin=b""))
    watched.child.start()
    assert watched.silent_s(tmp_path / "beat") == 0
    watched.start_s = 0.0
    until(lambda: watched.silent_s(tmp_path / "beat") > 0.1)
    moved_at = time.monotonic() - 1_000
    (tmp_path / "beat").touch()
    os.utime(tmp_path / "beat", (moved_at, moved_at))
    assert 1_000 <= watched.silent_s(tmp_path / "beat") < 1_100
    watched.child.stop(5)


def test_what_crashes_at_its_start_is_started_again_ever_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("worker.watched.time.monotonic", lambda: now)
    watched = Watched(Child("breaker", [sys.executable, "-c", "raise SystemExit(1)"]))
    delays = []
    watched.keep_alive()
    for _ in range(7):
        assert watched.child.wait(30)
        watched.keep_alive()  # notes the crash, and starts it at once or later
        delays.append(max(0.0, watched.not_before - now))
        now += delays[-1]
        if delays[-1]:
            watched.keep_alive()
    watched.child.wait(30)
    assert delays == [0, 0, 0, 1, 2, 4, 8]
    assert caplog.text.count("again in 8.0 s") == 1


def test_what_ran_for_a_while_is_started_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("worker.watched.time.monotonic", lambda: now)
    watched = Watched(Child("breaker", [sys.executable, "-c", "raise SystemExit(1)"]), crashes=9)
    watched.keep_alive()
    assert watched.child.wait(30)
    now += HEALTHY_AFTER_S + 1
    watched.keep_alive()
    assert (watched.crashes, watched.not_before) == (0, 0.0)
    watched.child.stop(5)


def test_the_thousandth_crash_in_a_row_is_one_more() -> None:
    watched = Watched(Child("breaker", [sys.executable, "-c", "raise SystemExit(1)"]))
    watched.child.start()
    assert watched.child.wait(30)
    watched.crashes = 5_000
    watched.keep_alive()
    assert 0 < watched.not_before - time.monotonic() <= BACKOFF_MAX_S


def test_a_host_is_killed_when_it_is_silent_at_a_second_look(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the first, the clock may only have been put forward."""
    [model] = served_models(served(), ["txt2img"], tmp_path, Device("cpu"))
    watched = HostProcess(settings, Device("cpu"), model, {}, ())
    host, beat = watched.child, watched.beat
    host.argv = [sys.executable, "-c", "import signal; signal.pause()"]
    watched.keep_alive()
    try:
        beat.touch()
        os.utime(beat, (1.0, 1.0))
        watched.keep_alive()
        beat.touch()
        watched.keep_alive()
        monkeypatch.setattr(host_process, "LOOK_AGAIN_S", 0.0)
        os.utime(beat, (1.0, 1.0))
        watched.keep_alive()
        assert host.is_alive
        first = host.pid
        watched.keep_alive()  # kills it, and starts another
        assert host.pid != first
        assert "has had no heartbeat" in caplog.text
    finally:
        host.kill()


def test_what_hangs_in_the_kernel_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("stuck", [sys.executable, "-c", "import signal; signal.pause()"])
    child.start()
    with monkeypatch.context() as patched:
        patched.setattr("crossmodal.processes.KILL_S", 0.1)
        patched.setattr(os, "killpg", lambda *_: None)  # it does not die of that
        child.kill()
        assert child.is_alive
    child.kill()
    assert child.returncode == -signal.SIGKILL


# -- a gateway's ------------------------------------------------------------------------


class Probed(BaseHTTPRequestHandler):
    """Answers /livez with 200, /readyz with 503."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output is not for it."""


def test_a_url_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = HTTPServer(("127.0.0.1", 0), Probed)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    assert (answers(f"{base}/livez"), answers(f"{base}/readyz")) == (True, False)
    server.shutdown()
    server.server_close()
    thread.join()
    assert not answers(f"{base}/livez")
    with pytest.raises(InvalidSetting, match="http://"):
        answers("/etc/passwd")


def test_the_command_says_by_its_exit_status_whether_a_url_answers() -> None:
    with pytest.raises(SystemExit) as ended:
        load("health")(["--url", "http://127.0.0.1:9/livez"])
    assert ended.value.code == 1
