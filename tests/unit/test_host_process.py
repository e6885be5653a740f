"""A model host as a child: how it is given up, and how it ends."""

import json
import logging
import signal
import sys
from pathlib import Path

import pytest

from crossmodal.settings import Settings
from tests.fakes.worker import served
from tests.waiting import until
from worker.devices import Device
from worker.host_process import TRIES, HostProcess
from worker.serving import failure_file
from worker.supervisor import served_models

FAILS = "raise SystemExit(1)"
LACKS_ROOM = """
import pathlib, sys
from crossmodal.errors import ModelHostUnavailable
from crossmodal.jobs.record import Failure
from worker.serving import failure_file
said = Failure.of(ModelHostUnavailable("the host cannot start: No space left on device"))
failure_file(pathlib.Path(sys.argv[1])).write_text(said.model_dump_json())
raise SystemExit(1)
"""
SERVES = """
import signal, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
signal.pause()
"""


def process(settings: Settings, folder: Path, program: str) -> HostProcess:
    """A host that runs a program in place of a model."""
    [model] = served_models(served(), ["txt2img"], folder, Device("cpu"))
    host = HostProcess(settings, Device("cpu"), model, {}, ())
    host.child.argv = [sys.executable, "-c", program, str(model.socket)]
    return host


def kept_alive(host: HostProcess) -> bool:
    host.keep_alive()
    return host.is_ready


def broken(host: HostProcess) -> bool:
    host.keep_alive()
    return host.is_broken


def test_a_model_that_fails_to_load_three_times_is_broken_and_says_why(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    program = f"""
from pathlib import Path
Path({str(tmp_path / "cpu.failure")!r}).write_text('{{"code": "model_invalid", "message": "NaN"}}')
{FAILS}"""
    host = process(settings, tmp_path, program)
    assert host.model.failure is None
    until(lambda: broken(host))
    assert host.model.failure is not None
    assert (host.model.failure.code, host.model.failure.message) == ("model_invalid", "NaN")
    assert caplog.text.count("started host") == TRIES
    host.keep_alive()
    assert not host.child.is_alive


def test_a_host_that_dies_without_a_word_is_broken_too(settings: Settings, tmp_path: Path) -> None:
    host = process(settings, tmp_path, "import os; os.kill(os.getpid(), 9)")
    until(lambda: broken(host))
    assert host.model.failure is not None
    assert "ended with status -9 while loading" in host.model.failure.message
    assert "run out of memory" in host.model.failure.message


def test_a_host_for_which_the_machine_has_no_room_breaks_no_model(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.watched.BACKOFF_MAX_S", 0.0)
    host = process(settings, tmp_path, LACKS_ROOM)
    for _ in range(TRIES + 2):
        until(lambda: kept_started(host))
        until(lambda: not host.child.is_alive)
    host.keep_alive()
    assert not host.is_broken
    host.child.kill()


def test_crashes_of_a_model_that_has_served_are_no_failed_loads(
    settings: Settings, tmp_path: Path
) -> None:
    host = process(settings, tmp_path, SERVES)
    try:
        for _ in range(TRIES + 1):
            until(lambda: kept_alive(host))
            host.child.send(signal.SIGKILL)
            until(lambda: not host.child.is_alive)
        assert not host.is_broken
    finally:
        host.child.kill()


def test_the_end_of_one_that_may_not_load_again_yet_is_noted_once(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = process(settings, tmp_path, SERVES)
    until(lambda: kept_alive(host))
    host.child.send(signal.SIGKILL)
    until(lambda: not host.child.is_alive)
    for _ in range(3):
        host.keep_alive(may_load=False)
    assert caplog.text.count("ended with status -9") == 1


def test_nor_are_those_that_come_before_it_was_seen_to_serve(
    settings: Settings, tmp_path: Path
) -> None:
    """As of a job that kills the host at once."""
    host = process(settings, tmp_path, SERVES)
    try:
        for _ in range(TRIES + 1):
            until(lambda: kept_started(host))
            until(lambda: host.model.is_loaded)
            host.child.send(signal.SIGKILL)
            until(lambda: not host.child.is_alive)
        assert not host.is_broken
    finally:
        host.child.kill()


def kept_started(host: HostProcess) -> bool:
    host.keep_alive()
    return host.child.is_alive


def test_what_is_not_wanted_ends_and_may_come_back(settings: Settings, tmp_path: Path) -> None:
    host = process(settings, tmp_path, SERVES)
    try:
        until(lambda: kept_alive(host))

        def ended() -> bool:
            host.end()
            return not host.child.is_alive and not host.model.socket.exists()

        until(ended)
        until(lambda: kept_alive(host))
    finally:
        host.child.kill()


def test_one_is_loaded_after_another(settings: Settings, tmp_path: Path) -> None:
    host = process(settings, tmp_path, SERVES)
    host.keep_alive(may_load=False)
    assert not host.child.is_alive


def test_an_old_failure_does_not_speak_for_the_next_try(settings: Settings, tmp_path: Path) -> None:
    host = process(settings, tmp_path, SERVES)
    failure_file(host.model.socket).write_text(json.dumps({"code": "x", "message": "old"}))
    try:
        until(lambda: kept_alive(host))
        assert not failure_file(host.model.socket).exists()
    finally:
        host.child.kill()
