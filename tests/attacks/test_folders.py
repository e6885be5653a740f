"""Files on the disk are private to one user, and a link in a folder leads nowhere else."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossmodal.errors import BlobNotFound, InvalidSetting, OutputNotWritable, StorageNotWritable
from crossmodal.files import make_private
from crossmodal.kinds.fields import BlobRef
from crossmodal.local.valkey import free_port, start_valkey
from crossmodal.storage import Storage
from producer.commands.targets import write
from tests.at_once import at_once
from worker.supervisor import make_folder

NOBODY = 65_534


@pytest.fixture(autouse=True)
def _open_to_all() -> Iterator[None]:
    """Clear the umask: only the code under test restricts access."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Storage:
    return Storage(folder.as_uri())


def open_to_others(folder: Path) -> list[Path]:
    """Return the paths that grant others any permission."""
    found = [folder, *folder.rglob("*")]
    return [path for path in found if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_what_is_stored_in_a_folder_is_for_its_user_alone(
    store: Storage, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"lines")
    store.put("results/a/2/0.png", b"a picture", "image/png")
    store.put_file("results/b/output.jsonl", tmp_path / "source", "application/jsonl")
    store.put_input(b"another", "image/png", "an-owner")
    store.check()
    assert open_to_others(folder) == []


def test_a_folder_that_an_earlier_version_left_open_is_closed(folder: Path) -> None:
    (folder / "results" / "a").mkdir(parents=True)
    (folder / "results" / "a" / "0.png").write_bytes(b"a picture")
    Storage(folder.as_uri())
    assert stat.S_IMODE((folder / "results").stat().st_mode) == 0o700
    assert Storage(folder.as_uri()).get(BlobRef(key="results/a/0.png")) == b"a picture"


def test_what_a_private_folder_is_made_in_is_private_too(tmp_path: Path) -> None:
    make_private(tmp_path / "share" / "crossmodal" / "up")
    assert open_to_others(tmp_path / "share") == []


def test_the_files_of_the_embedded_valkey_are_for_its_user_alone(tmp_path: Path) -> None:
    data = tmp_path / "valkey"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "appendonlydir" / "old").write_text("of an earlier start\n")
    server = start_valkey(data, free_port())
    try:
        assert len(list(data.rglob("*"))) > 2
        assert open_to_others(data) == []
    finally:
        server.kill()


@at_once("key", ["results/link/secret", "results/link", "results/a/secret"])
def test_a_link_in_the_store_leads_to_nothing(store: Storage, folder: Path, key: str) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "secret").write_bytes(b"a secret")
    store.put("results/a/0.png", b"a picture", "image/png")
    for link, target in (("link", elsewhere), ("a/secret", elsewhere / "secret")):
        if not (folder / "results" / link).is_symlink():
            (folder / "results" / link).symlink_to(target)
    with pytest.raises(BlobNotFound):
        store.get(BlobRef(key=key))
    with pytest.raises(BlobNotFound):
        list(store.stream(key, 0, 8))
    assert store.head(key) is None
    with pytest.raises(StorageNotWritable):
        store.put(key, b"other", "image/png")
    with pytest.raises(StorageNotWritable):
        store.delete(key)
    assert [blob.key for blob in store.list("results")] == ["results/a/0.png"]
    assert (elsewhere / "secret").read_bytes() == b"a secret"


def test_a_pipe_in_the_store_holds_nobody_up(store: Storage, folder: Path) -> None:
    store.put("results/a/0.png", b"a picture", "image/png")
    os.mkfifo(folder / "results" / "a" / "1.png")
    for read in (
        lambda: store.get(BlobRef(key="results/a/1.png")),
        lambda: list(store.stream("results/a/1.png", 0, 8)),
    ):
        with pytest.raises(BlobNotFound):
            read()


def test_a_picture_of_a_batch_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("as it was")
    (tmp_path / "a-0.png").symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputNotWritable):
        write(tmp_path / "a-0.png", b"a picture", follow=False)
    assert (tmp_path / "theirs").read_text() == "as it was"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("link", ["run", "user/run"])
def test_a_run_folder_that_is_anothers_link_is_refused_and_nothing_removed(
    tmp_path: Path, link: str
) -> None:
    own = tmp_path / "own" / "run"
    own.mkdir(mode=0o700, parents=True)
    (own / "1").mkdir()
    (own / "1" / "supervisor.lock").touch()  # as of a dead supervisor
    path = tmp_path / link.partition("/")[0]
    path.symlink_to(own if link == "run" else own.parent)
    os.lchown(path, NOBODY, NOBODY)
    with pytest.raises(InvalidSetting, match="others may write to"):
        make_folder(tmp_path / link)
    assert (own / "1" / "supervisor.lock").exists()
