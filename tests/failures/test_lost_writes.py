"""A power cut under a store in a folder: the file system loses what was not synced to its disk."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossmodal.errors import BlobNotFound
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage.store import Storage
from tests.conftest import need

SHUT_DOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
LOSE_ALL = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written
PICTURE = b"picture" * 1_000


@dataclass(frozen=True)
class Disk:
    """An ext4 file system in a file."""

    image: Path
    folder: Path

    def mount(self) -> bool:
        argv = ["mount", "-o", "loop", str(self.image), str(self.folder)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def lose_power(self) -> None:
        """Remount the file system with only what is on the disk by now."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(handle, SHUT_DOWN, LOSE_ALL)
        os.close(handle)
        self.unmount()
        assert self.mount()

    def store(self, *, fsync: bool = True) -> Storage:
        return Storage((self.folder / "new" / "store").as_uri(), fsync=fsync)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need(shutil.which("mkfs.ext4") is not None, "mkfs.ext4, of e2fsprogs")
    disk = Disk(tmp_path / "image", tmp_path / "mounted")
    disk.folder.mkdir()
    with disk.image.open("wb") as image:
        image.truncate(64 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", str(disk.image)], check=True)
    if not disk.mount():  # also where CI=true: most of its containers may not
        pytest.skip("needs the right to mount a file as a file system")
    yield disk
    disk.unmount()


def test_what_was_put_outlives_a_power_cut(disk: Disk) -> None:
    store = disk.store()
    blobs = [
        store.put_input(PICTURE, "image/png", owner="somebody"),
        store.put("results/job/0.png", PICTURE, "image/png"),
        store.put("results/job/1.png", PICTURE, "image/png"),
        store.put("results/job/2/captions.json", b"[]", "application/json"),
    ]
    disk.lose_power()
    for blob in blobs:
        assert disk.store().get(blob)


def test_a_large_file_outlives_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_bytes(PICTURE * 1_000)
    disk.store().put_file("results/batch/output.jsonl", source, "application/jsonl")
    disk.lose_power()
    assert disk.store().get(BlobRef(key="results/batch/output.jsonl")) == source.read_bytes()


def test_what_replaces_another_is_one_of_both_after_a_power_cut(disk: Disk) -> None:
    store = disk.store()
    store.put("previews/job/1.jpeg", b"old", "image/jpeg")
    blob = store.put("previews/job/1.jpeg", b"new", "image/jpeg")
    disk.lose_power()
    assert disk.store().get(blob) == b"new"


def test_without_fsync_a_power_cut_takes_what_was_just_put(disk: Disk) -> None:
    """Or the tests above would prove nothing."""
    blob = disk.store(fsync=False).put("results/job/0.png", PICTURE, "image/png")
    disk.lose_power()
    with pytest.raises(BlobNotFound):
        disk.store(fsync=False).get(blob)
