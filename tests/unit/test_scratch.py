"""Scratch folders: gone at their end, and after a death."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossmodal.scratch import scratch_folder

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


def test_a_folder_is_gone_after_its_block() -> None:
    with scratch_folder("test") as folder:
        (folder / "file").write_text("text")
    assert not folder.exists()


def test_what_a_killed_process_left_goes_with_the_next_of_its_purpose(temp: Path) -> None:
    left = left_by_a_killed_process()
    assert (left / "half done").exists()
    with scratch_folder("other"):
        assert left.exists()
    with scratch_folder("test") as folder:
        assert list(temp.iterdir()) == [folder]


def test_a_folder_in_use_stays() -> None:
    with scratch_folder("test") as first, scratch_folder("test") as second:
        assert first.exists()
        assert second.exists()


def test_makers_never_take_each_other_s_new_folders_for_abandoned() -> None:
    def work(_: int) -> bool:
        with scratch_folder("test") as folder:
            (folder / "file").write_text("text")
            return (folder / "file").exists()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(400)))
