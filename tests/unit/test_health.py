"""What a probe and the supervisor make of the files that workers touch."""

import os
import sys
from pathlib import Path

import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.processes import Child
from crossmodal.settings import Settings
from tests.waiting import until
from worker.health import UnitFiles, examine, supervisors_in
from worker.supervisor import Watched, make_folder


def test_folders_of_other_programs_are_neither_read_nor_removed(
    settings: Settings, tmp_path: Path
) -> None:
    for name in ("12-backup", "4194999", "notes"):
        (tmp_path / name).mkdir()
    here = settings.model_copy(update={"run_dir": tmp_path})
    assert examine(here) == []
    folder = make_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "12-backup", "4194999", "notes", str(os.getpid())
    }  # fmt: skip
    UnitFiles(folder, "cpu").mark.touch()
    assert supervisors_in(tmp_path) == [folder]
    [unit] = examine(here)
    assert (unit.device, unit.live, unit.ready) == ("cpu", False, False)


def test_what_a_dead_supervisor_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "4194999"  # over the largest process id there can be
    left.mkdir()
    UnitFiles(left, "cpu").mark.touch()
    make_folder(tmp_path)
    assert not left.exists()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InvalidSetting, match="others may write"):
        make_folder(shared / "run")


def test_a_process_that_never_moved_is_silent_once_it_should_have_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(Child("sleeper", [sys.executable, "-c", "input()"], stdin=b""))
    watched.child.start()
    assert watched.silent_s(tmp_path / "beat") == 0
    monkeypatch.setattr("worker.supervisor.START_S", 0.0)
    until(lambda: watched.silent_s(tmp_path / "beat") > 0.1)
    (tmp_path / "beat").touch()
    assert watched.silent_s(tmp_path / "beat") < 0.1
    watched.child.stop(5)
