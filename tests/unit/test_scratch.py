"""Scratch folders: gone at their end, and after a death."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crossmodal.scratch import NEW_S, scratch_folder

DIES = """
import os, signal
from crossmodal.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "half done").write_text("half")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def left_by_a_killed_process() -> Path:
    done = subprocess.run([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


def age(folder: Path) -> None:
    made_at = folder.stat().st_mtime - NEW_S - 1
    os.utime(folder, (made_at, made_at))


def test_a_folder_is_gone_after_its_block() -> None:
    with scratch_folder("test") as folder:
        (folder / "file").write_text("text")
    assert not folder.exists()


def test_what_a_killed_process_left_goes_with_the_next_of_its_purpose(temp: Path) -> None:
    left = left_by_a_killed_process()
    assert (left / "half done").exists()
    age(left)
    with scratch_folder("other"):
        assert left.exists()
    with scratch_folder("test") as folder:
        assert list(temp.iterdir()) == [folder]


def test_a_folder_in_use_stays_however_old_it_is() -> None:
    with scratch_folder("test") as first:
        age(first)
        with scratch_folder("test") as second:
            assert first.exists()
            assert second.exists()


def test_a_folder_that_was_just_made_stays() -> None:
    left = left_by_a_killed_process()
    with scratch_folder("test"):
        assert left.exists()
