import os
from pathlib import Path

import pytest

from crossmodal.errors import (
    BlobNotFound,
    ImageTooLarge,
    InvalidSetting,
    StorageNotWritable,
    StorageUnavailable,
)
from crossmodal.jobs.params import BlobRef
from crossmodal.local.valkey import free_port
from crossmodal.storage import Storage


@pytest.fixture(params=["file", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return Storage((tmp_path / "a folder").as_uri())
    if request.param == "memory":
        return Storage("memory:///")
    return Storage(str(request.getfixturevalue("s3_url")))


def test_what_was_put_can_be_got(storage: Storage) -> None:
    blob = storage.put("results/j/0.png", b"bytes", "image/png")
    assert storage.get(blob) == b"bytes"
    assert (blob.key, blob.size, blob.media_type) == ("results/j/0.png", 5, "image/png")


def test_putting_again_replaces(storage: Storage) -> None:
    storage.put("k", b"old", "text/plain")
    assert storage.get(storage.put("k", b"new", "text/plain")) == b"new"


def test_equal_pictures_are_stored_once(storage: Storage) -> None:
    assert storage.put_input(b"x", "image/png") == storage.put_input(b"x", "image/png")


def test_a_missing_blob_is_not_found(storage: Storage) -> None:
    with pytest.raises(BlobNotFound, match="nothing at 'results/none'"):
        storage.get(BlobRef(key="results/none"))


def test_deleting_is_final_and_may_be_repeated(storage: Storage) -> None:
    blob = storage.put("k", b"x", "text/plain")
    storage.delete("k")
    storage.delete("k")
    with pytest.raises(BlobNotFound):
        storage.get(blob)


def test_changed_bytes_are_noticed(storage: Storage) -> None:
    blob = storage.put("k", b"x", "text/plain")
    storage.put("k", b"y", "text/plain")
    with pytest.raises(StorageUnavailable, match="digest"):
        storage.get(blob)


def test_a_blob_over_the_limit_is_refused_by_its_size(storage: Storage) -> None:
    blob = storage.put("k", b"12345", "image/png")
    with pytest.raises(ImageTooLarge, match="5 bytes, 4 are allowed"):
        storage.get(blob, max_bytes=4)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    Storage(tmp_path.as_uri()).check()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_check_passes_wherever_blobs_can_be_kept(storage: Storage) -> None:
    storage.check()


@pytest.mark.parametrize("key", ["../outside", "a/../../b"])
def test_a_key_cannot_leave_the_store(storage: Storage, key: str) -> None:
    with pytest.raises(BlobNotFound):
        storage.get(BlobRef(key=key))


def test_only_stores_that_can_sign_do(tmp_path: Path, s3_url: str) -> None:
    assert Storage(tmp_path.as_uri()).sign("k") is None
    assert "Signature" in (Storage(s3_url).sign("k") or "")


def test_an_unknown_scheme_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidSetting, match=r"'ftp'.*file.*s3"):
        Storage("ftp://host/folder")


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageNotWritable):
        Storage((tmp_path / "file" / "folder").as_uri())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_not_writable(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    tmp_path.chmod(0o500)
    with pytest.raises(StorageNotWritable):
        storage.put("k", b"x", "text/plain")


def test_a_file_in_the_place_of_a_folder_is_not_writable(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(StorageNotWritable, match="cannot be written"):
        storage.put("results/j/0.png", b"x", "image/png")


def test_a_store_that_is_away_fails_in_time(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    storage = Storage(s3_url, timeout_s=1.0)
    with pytest.raises(StorageUnavailable):
        storage.put("k", b"x", "text/plain")
