"""The contract: what holds for every object store. Add one: CROSSMODAL_TEST_STORAGE_URL=s3://…"""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossmodal.errors import (
    BlobNotFound,
    ImageTooLarge,
    InvalidParams,
    InvalidSetting,
    StorageNotWritable,
    StorageUnavailable,
)
from crossmodal.kinds.fields import BlobRef
from crossmodal.local.valkey import free_port
from crossmodal.storage import Storage
from tests.at_once import at_once

GIVEN = os.environ.get("CROSSMODAL_TEST_STORAGE_URL", "")
KINDS = ["file", "memory", "moto", "seaweedfs", *(["given"] if GIVEN else [])]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return Storage((tmp_path / "a folder").as_uri())
    if request.param == "memory":
        return Storage("memory:///")
    if request.param == "moto":
        return Storage(str(request.getfixturevalue("s3_url")))
    if request.param == "seaweedfs":
        return Storage(str(request.getfixturevalue("seaweed_url")))
    return Storage(f"{GIVEN.rstrip('/')}/{uuid.uuid4().hex}")


def test_what_was_put_can_be_got(storage: Storage) -> None:
    blob = storage.put("results/j/0.png", b"bytes", "image/png")
    assert storage.get(blob) == b"bytes"
    assert (blob.key, blob.size, blob.media_type) == ("results/j/0.png", 5, "image/png")


def test_putting_again_replaces(storage: Storage) -> None:
    storage.put("k", b"old", "text/plain")
    assert storage.get(storage.put("k", b"new", "text/plain")) == b"new"


def test_nothing_at_all_can_be_put(storage: Storage) -> None:
    assert storage.get(storage.put("empty", b"", "text/plain")) == b""


def test_a_file_of_many_parts_is_put_whole_and_streamed_from_anywhere(
    storage: Storage, tmp_path: Path
) -> None:
    data = os.urandom(13 * 1_024 * 1_024)
    (tmp_path / "large").write_bytes(data)
    storage.put_file("large", tmp_path / "large", "application/octet-stream")
    assert b"".join(storage.stream("large", 0, len(data))) == data
    assert b"".join(storage.stream("large", 5_000_000, 9_000_000)) == data[5_000_000:9_000_000]
    assert b"".join(storage.stream("large", 5_000_000, 2 * len(data))) == data[5_000_000:]


def test_what_is_replaced_while_it_is_streamed_is_never_mixed(storage: Storage) -> None:
    storage.put("k", b"a" * 3_000_000, "text/plain")
    pieces = storage.stream("k", 0, 3_000_000)
    found = next(pieces)
    storage.put("k", b"b" * 3_000_000, "text/plain")
    with pytest.raises(StorageUnavailable):
        found += b"".join(pieces)
    assert set(found) == {ord("a")}


@at_once("key", ["a" * 300, "results/" + "/".join(["b" * 300] * 3)])
def test_a_key_that_no_blob_may_have_is_not_found(storage: Storage, key: str) -> None:
    with pytest.raises(BlobNotFound):
        storage.get(BlobRef(key=key))


def test_equal_pictures_are_stored_once(storage: Storage) -> None:
    assert storage.put_input(b"x", "image/png") == storage.put_input(b"x", "image/png")


def test_a_missing_blob_is_not_found(storage: Storage) -> None:
    with pytest.raises(BlobNotFound, match="nothing at 'results/none'") as caught:
        storage.get(BlobRef(key="results/none"))
    assert not caught.value.retryable
    assert storage.url not in str(caught.value)  # callers of the gateway are told it, too
    assert storage.head("results/none") is None


def test_a_folder_lists_what_is_in_it_and_below(storage: Storage) -> None:
    for key in ("results/a/0.png", "results/a/b/1.png", "results/ab/0.png", "inputs/c"):
        storage.put(key, key.encode(), "image/png")
    found = {blob.key: blob.size for blob in storage.list("results/a")}
    assert found == {"results/a/0.png": 15, "results/a/b/1.png": 17}
    assert list(storage.list("nothing")) == []


def test_more_blobs_than_a_store_lists_at_once_are_listed(
    storage: Storage, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["storage"] == "moto":
        pytest.skip("it takes ten seconds to put them there")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda i: storage.put(f"many/{i}", b"", "text/plain"), range(1_001)))
    assert len({blob.key for blob in storage.list("many")}) == 1_001


def test_looking_tells_size_and_time(storage: Storage) -> None:
    storage.put("k", b"12345", "text/plain")
    found = storage.head("k")
    assert found is not None
    assert (found.key, found.size) == ("k", 5)
    assert abs(found.modified_at - time.time()) < 3_600


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


def test_the_check_leaves_nothing_behind(storage: Storage) -> None:
    storage.check()
    assert list(storage.list("")) == []


@at_once("key", ["../outside", "a/../../b"])
def test_a_key_cannot_leave_the_store(storage: Storage, key: str) -> None:
    with pytest.raises(BlobNotFound):
        storage.get(BlobRef(key=key))


@at_once("seconds", [0, -1, 7 * 86_400 + 1])
def test_a_signed_url_lives_for_a_week_at_most(storage: Storage, seconds: float) -> None:
    with pytest.raises(InvalidParams, match="from 1 to 604800 seconds"):
        storage.sign("k", seconds)


def test_a_folder_signs_nothing(tmp_path: Path) -> None:
    assert Storage(tmp_path.as_uri()).sign("k") is None


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
    with pytest.raises(StorageUnavailable, match="connection refused") as caught:
        storage.put("k", b"x", "text/plain")
    assert caught.value.retryable
