"""Batches as a gateway feeds them, when what they need is missing, full or of another version."""

import asyncio
import errno
import json
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import BrokerUnavailable, JobNotFound, StorageUnavailable, TooManyQueued
from crossmodal.jobs.names import Task, bulk_job_id, http_batch_key, new_job_id
from crossmodal.jobs.params import BlobRef
from crossmodal.jobs.record import BatchStatus, Failure, ItemResult, JobResult, JobState
from crossmodal.settings import Settings
from producer import Client
from producer.gateway import feeder as feeding
from producer.gateway.app import make_app
from producer.gateway.feeder import (
    MEDIA_TYPE,
    BatchRecord,
    BatchRecords,
    Feeder,
    UnreadableBatch,
    input_of,
    output_of,
)
from tests.gateway import calling, running_gateway
from tests.unit.test_bulk import running
from tests.unit.test_ledger import WORKER
from tests.waiting import until
from tests.workers import environment
from worker.runner import Delivery

PROMPT = b'{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
JSONL = {"Content-Type": MEDIA_TYPE}
BROKEN = b"this line fails alone, without a worker\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "LOOK_S", 0.05)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def records(client: Client) -> BatchRecords:
    return BatchRecords(client)


@contextmanager
def running_feeder(client: Client) -> Iterator[Feeder]:
    feeder = Feeder(client)
    feeder.start()
    try:
        yield feeder
    finally:
        feeder.stop()
        feeder.join(30)
        for thread in list(feeder._running.values()):
            thread.join(30)


def opened(client: Client, text: bytes | None = BROKEN) -> str:
    """A batch that waits to be fed; without a text, its file is not in the store."""
    record = BatchRecord(id=new_job_id(), owner="me", task=Task.TXT2IMG, total=1, created_at=1.0)
    if text is not None:
        client.storage.put(input_of(record.id), text, MEDIA_TYPE)
    BatchRecords(client).open(record)
    return record.id


def ended(records: BatchRecords, batch_id: str) -> BatchRecord:
    until(lambda: records.get(batch_id).is_done, 30, "the batch's end")
    return records.get(batch_id)


@contextmanager
def a_message_sent(client: Client, batch_id: str) -> Iterator[str]:
    """The first message of a batch, which no worker takes."""
    sending = threading.Thread(
        target=lambda: list(client.map_txt2img(["a red circle"], batch_id=batch_id)), daemon=True
    )
    sending.start()
    message = bulk_job_id(batch_id, 0)
    until(lambda: is_there(client, message), 30, "the message")
    yield message
    client.cancel(message)
    sending.join(30)


def is_there(client: Client, job_id: str) -> bool:
    try:
        client.record(job_id)
    except JobNotFound:
        return False
    return True


def test_an_error_of_ours_does_not_keep_batches_from_being_fed(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    class NotAtFirst(threading.Thread):
        def start(self) -> None:
            tries.append(self)
            if len(tries) == 1:
                raise RuntimeError("can't start new thread")
            super().start()

    with running_feeder(client):
        monkeypatch.setattr(feeding, "Thread", NotAtFirst)
        assert ended(records, opened(client)).is_done
    assert len(tries) == 2


def test_a_batch_is_taken_up_when_the_lease_of_a_dead_gateway_ends(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "LEASE_S", 1)
    batch_id = opened(client)
    assert records.lease(batch_id, "a dead gateway")
    with running_feeder(client):
        assert ended(records, batch_id).is_done


def test_a_batch_waits_while_the_disk_is_full(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    class FullAtFirst(tempfile.TemporaryDirectory[str]):
        def __init__(self, **options: Any) -> None:
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise OSError(errno.ENOSPC, "No space left on device", "/tmp/secret")
            super().__init__(**options)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", FullAtFirst)
    batch_id = opened(client)
    with running_feeder(client):
        record = ended(records, batch_id)
    assert (record.failure, record.failed) == (None, 1)
    assert len(tries) == 3


def test_a_batch_that_is_given_up_names_no_file_and_no_store(
    client: Client, records: BatchRecords
) -> None:
    batch_id = opened(client, None)
    with running_feeder(client):
        failure = ended(records, batch_id).failure
    assert failure is not None
    assert failure.code == "blob_not_found"
    assert "/" not in failure.message


def test_a_line_of_the_output_names_no_store(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure.of(StorageUnavailable("s3://pictures at 10.0.0.7:9000 failed on 'a'"))
    result = ItemResult(index=0, custom_id="a", failure=failure)
    monkeypatch.setattr(client, "map_items", lambda *_, **__: iter([result]))
    batch_id = opened(client)
    with running_feeder(client):
        assert ended(records, batch_id).failed == 1
    output = client.storage.get(BlobRef(key=output_of(batch_id)))
    assert json.loads(output)["error"]["code"] == "storage_unavailable"
    assert b"10.0.0.7" not in output


def test_a_fault_of_ours_is_told_without_its_text(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("redis://user:password@10.0.0.1")

    monkeypatch.setattr(feeding, "BatchFile", broken)
    batch_id = opened(client)
    with running_feeder(client):
        failure = ended(records, batch_id).failure
    assert failure is not None
    assert failure.code == "internal_error"
    assert "redis" not in failure.message


def test_what_was_sent_of_a_batch_that_is_given_up_is_canceled(
    client: Client, records: BatchRecords
) -> None:
    line = json.dumps({"url": "/v1/txt2img", "body": {"prompt": "other items"}})
    batch_id = opened(client, line.encode())
    with a_message_sent(client, batch_id) as message, running_feeder(client):
        failure = ended(records, batch_id).failure
        assert failure is not None
        assert failure.code == "idempotency_conflict"
        assert client.record(message).state is JobState.CANCELED


def test_a_cancellation_that_failed_is_tried_again(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    cancel = client.cancel_batch

    def away_at_first(batch_id: str) -> BatchStatus:
        tries.append(batch_id)
        if len(tries) == 1:
            raise BrokerUnavailable("nobody listens there")
        return cancel(batch_id)

    monkeypatch.setattr(client, "cancel_batch", away_at_first)
    batch_id = opened(client, PROMPT)
    with running_feeder(client):
        until(lambda: is_there(client, bulk_job_id(batch_id, 0)), 30, "the message")
        records.cancel(batch_id)
        assert ended(records, batch_id).failed == 1
    assert len(tries) == 2


def test_a_batch_that_nobody_feeds_yet_stays_canceled(
    client: Client, records: BatchRecords, admin: Any
) -> None:
    batch_id = opened(client, PROMPT)
    canceled = f"{http_batch_key(client.settings.key_prefix, batch_id)}:canceled"
    records.cancel(batch_id)
    assert admin.ttl(canceled) == -1
    with running_feeder(client):
        assert ended(records, batch_id).failed == 1
    assert admin.ttl(canceled) > 0
    client.redis.persist(canceled)
    records.cancel(batch_id)  # by somebody who has not seen its end
    assert admin.ttl(canceled) > 0


def test_a_canceled_batch_keeps_what_is_done_also_when_it_is_taken_up_again(
    client: Client, records: BatchRecords, settings: Settings, tmp_path: Path
) -> None:
    """One gateway is killed while it feeds, another is asked to cancel, a third takes it up.

    The only worker is the test's own: it runs the first message, and no other.
    """
    with running_gateway(environment(settings), tmp_path) as first:
        reply = first.http.post("/v1/batches", content=PROMPT * 150, headers=JSONL)
        batch_id = reply.json()["id"]
        until(lambda: sent(client, batch_id) == 150, 30, "three messages")
        run_message(settings, bulk_job_id(batch_id, 0))
        first.child.kill()
    app = make_app(settings, needs_keys=False)

    async def cancel() -> str:
        async with calling(app) as http:
            return str((await http.post(f"/v1/batches/{batch_id}/cancel")).json()["status"])

    assert asyncio.run(cancel()) == "canceling"
    assert client.batch(batch_id).messages == {JobState.SUCCEEDED: 1, JobState.CANCELED: 2}
    records.release(batch_id)  # or its lease had to end first
    with running_feeder(client):
        record = ended(records, batch_id)
    assert (record.completed, record.failed) == (64, 86)
    rows = map(json.loads, client.storage.get(BlobRef(key=output_of(batch_id))).splitlines())
    failed = [row["error"]["code"] for row in rows if row["error"]]
    assert failed == ["canceled"] * 86


def sent(client: Client, batch_id: str) -> int:
    try:
        return client.batch(batch_id).total
    except JobNotFound:
        return 0


def run_message(settings: Settings, job_id: str) -> None:
    """Run one message as a worker does, on a host without models."""
    with (
        tempfile.TemporaryDirectory(prefix="cm-") as folder,
        running(settings, Path(folder)) as (
            _,
            runner,
        ),
    ):
        delivery = Delivery(job_id, Task.TXT2IMG_BULK, {}, WORKER, is_recorded=True)
        assert isinstance(runner.run(delivery), JobResult)


def test_a_message_of_a_batch_is_not_deleted(client: Client, settings: Settings) -> None:
    with a_message_sent(client, new_job_id()) as message:
        client.cancel(message)
        app = make_app(settings, needs_keys=False)

        async def scenario() -> tuple[int, str]:
            async with calling(app) as http:
                reply = await http.delete(f"/v1/jobs/{message}")
                return reply.status_code, reply.json()["code"]

        assert asyncio.run(scenario()) == (409, "wrong_state")
        assert is_there(client, message)


def test_a_batch_whose_record_is_gone_leaves_room_for_another(
    client: Client, records: BatchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "MOST_UNFINISHED", 1)
    batch_id = opened(client)
    client.redis.delete(http_batch_key(client.settings.key_prefix, batch_id))
    with pytest.raises(TooManyQueued):
        records.check_room("me")
    with running_feeder(client):
        until(lambda: batch_id not in records.unfinished(), 30, "that it is forgotten")
    records.check_room("me")


def test_a_record_of_another_version_is_left_to_others_and_keeps_nobody_waiting(
    client: Client, records: BatchRecords, caplog: pytest.LogCaptureFixture
) -> None:
    other = opened(client)
    client.redis.set(http_batch_key(client.settings.key_prefix, other), '{"version": 9}')
    with pytest.raises(UnreadableBatch):
        records.get(other)
    with running_feeder(client):
        for _ in range(3):
            assert ended(records, opened(client)).failed == 1
    assert other in records.unfinished()
    assert records.lease(other, "another gateway")
    assert len([line for line in caplog.messages if "is left to others" in line]) == 1


def test_a_large_file_is_never_in_memory_as_a_whole(client: Client, tmp_path: Path) -> None:
    line = b"x" * 1_000_000 + b"\n"
    size = 30 * len(line)
    batch_id = opened(client, line * 30)
    target = tmp_path / "input.jsonl"
    tracemalloc.start()
    try:
        Feeder(client)._fetch(batch_id, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == size
    assert peak < size / 4
