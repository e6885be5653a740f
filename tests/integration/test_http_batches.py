"""Batches that came over HTTP: run, canceled and taken over, whatever is missing, full or dead."""

import asyncio
import errno
import json
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import JobNotFound, StorageUnavailable, TooManyQueued
from crossmodal.jobs import http_batches
from crossmodal.jobs.http_batches import (
    MEDIA_TYPE,
    HttpBatch,
    HttpBatches,
    UnreadableBatch,
    input_of,
    output_of,
)
from crossmodal.jobs.names import batch_key, bulk_job_id, http_batch_key, job_key, new_job_id
from crossmodal.jobs.record import Failure, ItemResult, JobResult, JobState
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from producer import Client
from producer.batches.jsonl import BatchFile
from producer.gateway.app import make_app
from tests.background import Running, background, running
from tests.gateway import calling
from tests.unit.test_bulk import running as running_job_runner
from tests.unit.test_ledger import WORKER
from tests.waiting import until
from tests.workers import environment
from worker.background import http_batch_run as batch_run
from worker.background import http_batches as batch_runner
from worker.background.http_batch_run import BatchLeft, BatchRun
from worker.background.http_batches import MAX_OF_OWNER, MAX_RUNS, BatchRunner
from worker.endings import TakenMessage

PROMPT = b'{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
BROKEN = b"this line fails alone, without a worker\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "POLL_S", 0.05)
    monkeypatch.setattr(batch_runner, "RETRY_S", 0.05)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    runner = Runner(settings)
    yield runner
    runner.close()


class Records:
    """`HttpBatches`, asked by a runner that waits."""

    def __init__(self, settings: Settings, runner: Runner) -> None:
        self.calls, self.run = HttpBatches(settings), runner.run

    def open(self, client: Client, text: bytes | None = BROKEN, owner: str = "me") -> str:
        """A batch that waits to be run; without a text, its file is not in the store."""
        batch = HttpBatch(
            id=new_job_id(), owner=owner, task=Task("txt2img"), total=1, created_at=1.0
        )
        if text is not None:
            client.storage.put(input_of(batch.id), text, MEDIA_TYPE)
        self.run(self.calls.open(batch))
        return batch.id

    def get(self, batch_id: str) -> HttpBatch:
        return self.run(self.calls.get(batch_id))

    def ended(self, batch_id: str) -> HttpBatch:
        until(lambda: self.get(batch_id).is_done, 30, "the batch's end")
        return self.get(batch_id)

    def unfinished(self) -> dict[str, str]:
        return self.run(self.calls.unfinished())


@pytest.fixture
def records(settings: Settings, runner: Runner) -> Records:
    return Records(settings, runner)


@contextmanager
def running_batches(client: Client, settings: Settings | None = None) -> Iterator[Running]:
    """A batch runner that uses this client."""
    chosen = settings or client.settings

    def make(runner: AsyncRunner) -> BatchRunner:
        return BatchRunner(chosen, runner, client)

    with running(chosen, make) as part:
        yield part


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


def sent(client: Client, batch_id: str) -> int:
    try:
        return client.batch(batch_id).total
    except JobNotFound:
        return 0


def run_message(settings: Settings, job_id: str) -> None:
    """Run one message as a worker does, on a host without models."""
    with (
        tempfile.TemporaryDirectory(prefix="cm-") as folder,
        running_job_runner(settings, Path(folder)) as (_, runner),
    ):
        taken = TakenMessage(job_id, Task("txt2img.bulk"), {}, WORKER, is_recorded=True)
        assert isinstance(runner.run(taken), JobResult)


# -- one run ----------------------------------------------------------------------------


def run_of(client: Client, records: Records, text: bytes | None = BROKEN) -> BatchRun:
    return BatchRun(client, records.get(records.open(client, text)))


def test_a_batch_that_is_given_up_names_no_file_and_no_store(
    client: Client, records: Records
) -> None:
    failure = run_of(client, records, None).to_end().failure
    assert failure is not None
    assert failure.code == "blob_not_found"
    assert "/" not in failure.message


def test_a_line_of_the_output_names_no_store(
    client: Client, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure.of(StorageUnavailable("s3://pictures at 10.0.0.7:9000 failed on 'a'"))
    result = ItemResult(index=0, custom_id="a", failure=failure)
    monkeypatch.setattr(BatchFile, "items", lambda _: iter([result]))
    ended = run_of(client, records).to_end()
    assert ended.failed == 1
    output = client.storage.get(BlobRef(key=output_of(ended.id)))
    assert json.loads(output)["error"]["code"] == "storage_unavailable"
    assert b"10.0.0.7" not in output


def test_a_batch_one_of_whose_records_redis_has_lost_is_run_again(
    client: Client, records: Records
) -> None:
    batch_id = records.open(client, PROMPT)
    run = BatchRun(client, records.get(batch_id))
    message = bulk_job_id(batch_id, 0)

    def lost() -> None:
        until(lambda: is_there(client, message), 30, "the message")
        client.redis.delete(job_key(client.settings.key_prefix, message))

    losing = threading.Thread(target=lost)
    losing.start()
    with pytest.raises(JobNotFound):
        run.to_end()
    losing.join()
    assert not records.get(batch_id).is_done


def test_an_internal_error_is_told_without_its_text(
    client: Client, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("redis://user:password@10.0.0.1")

    monkeypatch.setattr(batch_run, "BatchFile", broken)
    failure = run_of(client, records).to_end().failure
    assert failure is not None
    assert failure.code == "internal_error"
    assert "redis" not in failure.message


def test_a_run_can_be_left_while_nothing_comes(client: Client, records: Records) -> None:
    run = run_of(client, records, PROMPT)
    message = bulk_job_id(run._batch.id, 0)
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(run.to_end)
        until(lambda: is_there(client, message), 30, "the message")
        run.leave()
        with pytest.raises(BatchLeft):
            ending.result(30)
    assert client.record(message).state is JobState.QUEUED


def test_a_large_file_is_never_in_memory_as_a_whole(
    client: Client, records: Records, tmp_path: Path
) -> None:
    line = b"x" * 1_000_000 + b"\n"
    size = 30 * len(line)
    run, target = run_of(client, records, line * 30), tmp_path / "input.jsonl"
    tracemalloc.start()
    try:
        run._fetch(target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == size
    assert peak < size / 4


# -- the runner -------------------------------------------------------------------------


def test_an_internal_error_does_not_keep_batches_from_being_run(
    client: Client, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    unfinished = HttpBatches.unfinished

    def not_at_first(self: HttpBatches) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("can't start new thread")
        return unfinished(self)

    monkeypatch.setattr(HttpBatches, "unfinished", not_at_first)
    with running_batches(client):
        assert records.ended(records.open(client)).failed == 1
    assert len(tries) > 1


def test_a_batch_waits_while_the_disk_is_full(
    client: Client, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def full_at_first(**options: Any) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device", "/tmp/secret")
        return str(made(**options))

    made = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", full_at_first)
    batch_id = records.open(client)
    with running_batches(client):
        batch = records.ended(batch_id)
    assert (batch.failure, batch.failed) == (None, 1)
    assert len(tries) == 3


def test_what_was_sent_of_a_batch_that_is_given_up_is_canceled(
    client: Client, records: Records
) -> None:
    line = json.dumps({"url": "/v1/txt2img", "body": {"prompt": "other items"}})
    batch_id = records.open(client, line.encode())
    with a_message_sent(client, batch_id) as message, running_batches(client):
        failure = records.ended(batch_id).failure
        assert failure is not None
        assert failure.code == "idempotency_conflict"
        assert client.record(message).state is JobState.CANCELED


def test_an_owners_batches_leave_room_for_those_of_others(client: Client, records: Records) -> None:
    for _ in range(MAX_OF_OWNER + 1):
        records.open(client, PROMPT, "greedy")
    other = records.open(client, BROKEN, "other")
    with running_batches(client):
        assert records.ended(other).failed == 1
        sent_of = [sent(client, i) for i, owner in records.unfinished().items()]
        assert sum(sent_of) <= MAX_OF_OWNER


def test_no_owner_waits_for_the_batches_of_many_others(client: Client, records: Records) -> None:
    for number in range(MAX_RUNS + 1):
        for _ in range(MAX_OF_OWNER):
            records.open(client, PROMPT, f"greedy {number}")
    other = records.open(client, BROKEN, "other")
    with running_batches(client):
        assert records.ended(other).failed == 1


def test_a_batch_whose_record_is_gone_leaves_room_for_another(
    client: Client, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_batches, "MAX_UNFINISHED", 1)
    batch_id = records.open(client)
    client.redis.delete(http_batch_key(client.settings.key_prefix, batch_id))
    with pytest.raises(TooManyQueued):
        records.run(records.calls.check_room("me"))
    with running_batches(client):
        until(lambda: batch_id not in records.unfinished(), 30, "that it is forgotten")
    records.run(records.calls.check_room("me"))


def test_a_record_of_another_version_is_left_to_others_and_keeps_nobody_waiting(
    client: Client, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    other = records.open(client)
    client.redis.set(http_batch_key(client.settings.key_prefix, other), '{"version": 9}')
    with pytest.raises(UnreadableBatch):
        records.get(other)
    with running_batches(client):
        for _ in range(3):
            assert records.ended(records.open(client)).failed == 1
        until(lambda: records.run(records.calls.lease(other, "somebody else")), 30, "its release")
    assert other in records.unfinished()
    assert len([line for line in caplog.messages if "is skipped for now" in line]) == 1


# -- who dies ---------------------------------------------------------------------------


def test_a_lease_is_one_processs_until_it_ends_or_is_released(
    records: Records, settings: Settings, runner: Runner
) -> None:
    brief = HttpBatches(settings.model_copy(update={"lease_s": 0.2}))
    batch_id = new_job_id()
    assert runner.run(brief.lease(batch_id, "one"))
    until(lambda: runner.run(brief.lease(batch_id, "other")), 30, "the end of the lease")
    assert runner.run(records.calls.lease(batch_id, "other"))
    runner.run(records.calls.release(batch_id, "one"))
    assert not runner.run(records.calls.lease(batch_id, "one"))
    runner.run(records.calls.release(batch_id, "other"))
    assert runner.run(records.calls.lease(batch_id, "one"))


def test_a_batch_goes_on_in_another_process_when_its_own_is_killed(
    client: Client, records: Records, settings: Settings, tmp_path: Path
) -> None:
    env = environment(settings) | {"CROSSMODAL_LEASE_S": "2", "CROSSMODAL_SWEEP_S": "0.5"}
    batch_id = records.open(client, PROMPT * 150)
    with background(env, tmp_path / "background") as process:
        until(lambda: sent(client, batch_id) == 150, 30, "three messages")
        process.kill()
    for number in range(3):
        run_message(settings, bulk_job_id(batch_id, number))
    with running_batches(client):
        batch = records.ended(batch_id)
    assert (batch.completed, batch.failed) == (150, 0)
    assert client.batch(batch_id).messages == {JobState.SUCCEEDED: 3}


def test_a_process_that_is_told_to_end_leaves_its_batches_at_once(
    client: Client, records: Records
) -> None:
    batch_id = records.open(client, PROMPT)
    with running_batches(client):
        until(lambda: sent(client, batch_id) == 1, 30, "the message")
    assert records.run(records.calls.lease(batch_id, "the next process"))
    assert client.record(bulk_job_id(batch_id, 0)).state is JobState.QUEUED


# -- canceling --------------------------------------------------------------------------


def canceled_over_http(settings: Settings, batch_id: str) -> dict[str, Any]:
    """What a gateway of its own answers, which has never heard of the batch before."""
    app = make_app(settings, needs_keys=False)

    async def cancel() -> dict[str, Any]:
        async with calling(app) as http:
            found: dict[str, Any] = (await http.post(f"/v1/batches/{batch_id}/cancel")).json()
            return found

    return asyncio.run(cancel())


def test_a_batch_is_canceled_at_once_where_no_other_process_lives_and_keeps_what_is_done(
    client: Client, records: Records, settings: Settings, tmp_path: Path
) -> None:
    """The only worker is the test's own: it runs the first message, and no other."""
    batch_id = records.open(client, PROMPT * 150)
    with background(environment(settings), tmp_path / "background") as process:
        until(lambda: sent(client, batch_id) == 150, 30, "three messages")
        run_message(settings, bulk_job_id(batch_id, 0))
        process.kill()
    assert canceled_over_http(settings, batch_id)["status"] == "canceling"
    assert client.batch(batch_id).messages == {JobState.SUCCEEDED: 1, JobState.CANCELED: 2}
    client.redis.delete(f"{http_batch_key(settings.key_prefix, batch_id)}:lease")  # or it must end
    with running_batches(client):
        batch = records.ended(batch_id)
    assert (batch.completed, batch.failed) == (64, 86)
    rows = map(json.loads, client.storage.get(BlobRef(key=output_of(batch_id))).splitlines())
    failed = [row["error"]["code"] for row in rows if row["error"]]
    assert failed == ["canceled"] * 86


def test_nothing_is_sent_of_a_batch_that_was_canceled_before_it_began(
    client: Client, records: Records, settings: Settings, admin: Any
) -> None:
    batch_id = records.open(client, PROMPT)
    assert canceled_over_http(settings, batch_id)["request_counts"]["total"] == 1
    assert records.get(batch_id).is_canceled
    with running_batches(client):
        assert records.ended(batch_id).failed == 1
    assert not is_there(client, bulk_job_id(batch_id, 0))
    assert 0 < admin.ttl(batch_key(settings.key_prefix, batch_id)) <= settings.retention_s


def test_a_cancellation_whose_gateway_died_is_finished(
    client: Client, records: Records, settings: Settings
) -> None:
    batch_id = records.open(client, PROMPT)
    with running_batches(client):
        until(lambda: sent(client, batch_id) == 1, 30, "the message")
        client.redis.hset(batch_key(settings.key_prefix, batch_id), "is_canceled", 1)
        assert records.ended(batch_id).failed == 1
    assert client.record(bulk_job_id(batch_id, 0)).state is JobState.CANCELED


def test_a_batch_that_is_not_known_is_not_canceled(client: Client, runner: Runner) -> None:
    with pytest.raises(JobNotFound):
        client.cancel_batch("nobody.sent.it")
    assert not runner.redis.exists(batch_key(client.settings.key_prefix, "nobody.sent.it"))


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
