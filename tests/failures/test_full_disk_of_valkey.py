"""The embedded server's data outlive a full disk and a restart."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from crossmodal.local.append_only import AppendOnlyFile
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from tests.chaos.disk import Disk
from tests.waiting import until

MEGABYTES = 48


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", MEGABYTES)
    if not disk.may_fill:
        pytest.skip("only root may mount a file system")
    yield disk
    disk.close()


def write_until_refused(redis: Any) -> None:
    """Write values of all lengths: one of them is cut short by the end of the disk."""
    for length in range(1, 1_000_000):
        try:
            redis.set(f"key {length % 100}", os.urandom(length))
        except ResponseError:
            return


def rewrites(redis: Any) -> bool:
    found = redis.info("persistence")
    return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def is_mended(file: AppendOnlyFile) -> bool:
    file.look()
    return file.is_whole


def test_what_was_written_before_and_after_is_there_after_a_restart(disk: Disk) -> None:
    port = free_port()
    server = start_valkey(disk.folder, port)
    file = AppendOnlyFile(valkey_url(port))
    with Redis(port=port) as redis:
        redis.set("before", "1")
        redis.bgrewriteaof()
        until(lambda: not rewrites(redis))
        writing = threading.Thread(target=write_until_refused, args=[redis])
        writing.start()
        disk.fill()
        writing.join()
        until(lambda: not is_mended(file))  # it has seen the failure
        disk.free()
        until(lambda: redis.info("persistence")["aof_last_write_status"] == "ok")
        redis.set("after", "2")
        until(lambda: is_mended(file))
    server.kill()
    server = start_valkey(disk.folder, port)
    with Redis(port=port, decode_responses=True) as redis:
        assert redis.mget("before", "after") == ["1", "2"]
    server.stop(10)
