"""Bulk: items packed into messages, sent once, and each answered for, whatever becomes of others.

The queue and the host's socket are real; the models are not, and no Celery worker is here.
"""

import base64
import io
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from crossmodal.errors import IdempotencyConflict, InvalidImage, InvalidParams, JobNotFound
from crossmodal.jobs.bulk import BulkItem, pack_items, unpack_items
from crossmodal.jobs.calls import Call
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.names import batch_key, bulk_job_id, job_key, messages_key, result_key
from crossmodal.jobs.params import BulkParams, parse_params
from crossmodal.jobs.record import Failure, ItemResult, JobResult, JobState, Timings
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.parts import finished_parts, put_part, read_part
from crossmodal.settings import Settings
from producer import Client
from producer.batches.bulk import MOST_FAILED, Request, fitting
from producer.batches.inline import decoded
from producer.batches.jsonl import BatchFile, result_line
from producer.batches.seeds import item_seed
from producer.calls import ClientCalls
from producer.commands.batch import stem_of
from producer.waiting import Wait
from tests.at_once import at_once
from tests.fakes.local_host import SIDE, FakeHost, serving
from tests.fakes.runner import LoopRunner, looping
from tests.unit.test_ledger import WORKER
from tests.waiting import until
from worker import bulk
from worker.endings import Ending, Released, TakenMessage

WAIT_S = 30
BATCH = "some-batch"
BULK = Task("txt2img.bulk")
MIB = 2**20
TIMINGS = Timings(queued_s=0, batch_wait_s=0, inference_s=0, store_s=0, total_s=0)
LIMIT = 10_000  # bytes of a picture in a file


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of queues that no worker serves by itself."""
    with Client(settings) as client:
        yield client


Results = dict[int, ItemResult]


class Sending:
    """A batch that another thread sends and waits for."""

    def __init__(
        self,
        client: Client,
        items: list[BulkItem] | Iterator[ItemResult],
        task: Task = Task("txt2img"),
        batch_id: str = BATCH,
    ) -> None:
        self.client = client
        self.batch_id = batch_id
        found = items
        if isinstance(items, list):
            found = client.map_items(each(items, task), batch_id=batch_id)
        self.future: Future[list[ItemResult]] = Future()
        threading.Thread(target=self._send, args=[found], daemon=True).start()

    def _send(self, found: Iterator[ItemResult]) -> None:
        try:
            self.future.set_result(list(found))
        except BaseException as e:  # noqa: BLE001 - it is raised by `results`
            self.future.set_exception(e)

    def until_sent(self, items: int) -> None:
        until(lambda: self.future.done() or self.sent() == items, WAIT_S)
        assert self.sent() == items

    def sent(self) -> int:
        try:
            return self.client.batch(self.batch_id).total
        except JobNotFound:
            return 0

    def results(self) -> Results:
        found = self.future.result(timeout=WAIT_S)
        assert len({r.index for r in found}) == len(found)
        return {r.index: r for r in found}


def each(items: Iterable[BulkItem], task: Task = Task("txt2img")) -> Iterator[Request]:
    """Items of one kind."""
    return ((task, item) for item in items)


def prompts(number: int, **params: Any) -> list[BulkItem]:
    return [BulkItem(f"c{i}", {"prompt": f"p{i}", "seed": i} | params) for i in range(number)]


def sizes_of_messages(client: Client, batch_id: str = BATCH) -> list[int]:
    status = client.batch(batch_id)
    numbers = range(sum(status.messages.values()))
    return [bulk_params(client, batch_id, n).items for n in numbers]


def bulk_params(client: Client, batch_id: str, number: int) -> BulkParams:
    job = client.record(bulk_job_id(batch_id, number))
    params = parse_params(job.task, job.params)
    assert isinstance(params, BulkParams)
    return params


def started(client: Client, number: int = 0) -> Attempt:
    attempt = client.run(client.ledger.start(bulk_job_id(BATCH, number), WORKER))
    assert isinstance(attempt, Attempt)
    return attempt


def started_with_parts(client: Client, count: int) -> tuple[Attempt, list[BlobRef]]:
    """An attempt that has stored a part for each of so many items."""
    attempt = started(client)
    return attempt, [
        put_part(client.storage, attempt.job, 1, [ItemResult(index=i, custom_id=f"c{i}", seed=i)])
        for i in range(count)
    ]


def codes(results: Results) -> dict[int, str | None]:
    return {i: r.failure.code if r.failure else None for i, r in results.items()}


# -- packing ----------------------------------------------------------------------------


def test_items_come_out_as_they_went_in() -> None:
    items = [BulkItem("a", {"prompt": "é", "seed": 2**32 - 1}), BulkItem("b", {}, b"\x00\xff")]
    assert unpack_items(pack_items(items)) == items


def test_half_a_character_is_packed_like_any_other() -> None:
    """A job of its own takes such a prompt, so an item does."""
    items = [BulkItem("a", {"prompt": "a red \ud800 circle"})]
    assert unpack_items(pack_items(items)) == items


@at_once(
    "data",
    [
        b"",
        b"hello",
        b"\xc1",
        pack_items([BulkItem("a", {})])[:-1],
        b"\x91\x01",
        b"\x91\x93\xa1a",
        b"\x91\x93\x01\x80\xc0",
        b"\x91\x93\xa1a\x90\xc0",
        b"\x91\x93\xa1a\x80\xa1b",
        b"\x91\x92\xa1a\x80",
        b"\x01",
        b"\x80",
        b"\xa0",
        b"\x91" * 5_000,
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParams, match="bulk message"):
        unpack_items(data)


# -- sending ----------------------------------------------------------------------------


@at_once("item_s, items", [(None, 256), (1e-6, 1024), (0.003, 1000), (0.1, 30), (60.0, 1)])
def test_a_message_has_the_items_that_fit_its_time(item_s: float | None, items: int) -> None:
    assert fitting(item_s) == items


def test_many_items_travel_in_larger_messages(client: Client) -> None:
    sending = Sending(client, prompts(16 * 64 + 300))
    sending.until_sent(16 * 64 + 300)
    assert sizes_of_messages(client) == [64] * 16 + [256, 44]
    client.cancel_batch(BATCH)
    sending.results()


def mixed(number: int) -> Iterator[Request]:
    """Prompts and pictures by turns."""
    for i, item in enumerate(prompts(number)):
        yield (Task("img2txt"), BulkItem(f"c{i}", {}, b"x")) if i % 2 else (Task("txt2img"), item)


def test_a_batch_of_several_kinds_has_messages_of_one_each(client: Client) -> None:
    first = Sending(client, client.map_items(mixed(140), batch_id=BATCH))
    first.until_sent(140)
    again = Sending(client, client.map_items(mixed(140), batch_id=BATCH))
    jobs = [client.record(bulk_job_id(BATCH, number)) for number in range(4)]
    assert [job.task for job in jobs] == [BULK, Task("img2txt.bulk")] * 2
    assert sizes_of_messages(client) == [64, 64, 6, 6]
    client.cancel_batch(BATCH)
    assert codes(again.results()) == codes(first.results()) == dict.fromkeys(range(140), "canceled")
    assert client.batch(BATCH).task is None


def test_how_many_items_a_message_has_depends_on_their_kind(client: Client) -> None:
    client.redis.hset(f"{client.settings.key_prefix}:queue:{BULK!s}:stats", "mean_item_s", 0.375)
    sending = Sending(client, client.map_items(mixed(32), batch_id=BATCH))
    sending.until_sent(32)
    assert sorted(sizes_of_messages(client)) == [8, 8, 16]
    client.cancel_batch(BATCH)
    sending.results()


def test_a_rerun_packs_the_same_messages_however_long_items_take_now(client: Client) -> None:
    first = Sending(client, prompts(40))
    first.until_sent(40)
    client.redis.hset(f"{client.settings.key_prefix}:queue:{BULK!s}:stats", "mean_item_s", 0.375)
    other = Sending(client, prompts(40), batch_id="other")
    again = Sending(client, prompts(40))
    other.until_sent(40)
    client.cancel_batch("other")
    client.cancel_batch(BATCH)
    assert sizes_of_messages(client, "other") == [8] * 5
    assert codes(again.results()) == codes(first.results()) == dict.fromkeys(range(40), "canceled")
    assert len(other.results()) == 40


def test_a_rerun_packs_the_same_messages_also_of_kinds_of_which_none_was_sent(
    client: Client,
) -> None:
    items = [
        (Task("txt2img"), item) if i % 10 else (Task("img2txt"), BulkItem(item.custom_id, {}, b"x"))
        for i, item in enumerate(prompts(200))
    ]
    first = client.calls.map_items(iter(items), batch_id=BATCH)
    client.run(first.turn())  # then its sender dies
    until(lambda: client.batch(BATCH).total > 0, WAIT_S)
    queue = str(Task("img2txt.bulk"))
    client.redis.hset(f"{client.settings.key_prefix}:queue:{queue}:stats", "mean_item_s", 0.375)
    again = Sending(client, client.map_items(iter(items), batch_id=BATCH))
    again.until_sent(200)
    client.cancel_batch(BATCH)
    assert codes(again.results()) == dict.fromkeys(range(200), "canceled")


def test_a_message_of_which_no_item_can_be_sent_is_none(client: Client) -> None:
    bad = [BulkItem(str(i), {"prompt": 2**64}) for i in range(64)]
    sending = Sending(client, [*bad, *prompts(1)])
    sending.until_sent(1)
    client.cancel_batch(BATCH)
    assert codes(sending.results()) == dict.fromkeys(range(64), "invalid_params") | {64: "canceled"}
    assert client.batch(BATCH).is_done


def test_a_small_batch_is_sent_in_messages_of_64(client: Client) -> None:
    sending = Sending(client, prompts(130))
    sending.until_sent(130)
    assert sizes_of_messages(client) == [64, 64, 2]
    client.cancel_batch(BATCH)
    assert len(sending.results()) == 130


def test_a_message_has_fewer_items_when_they_are_large(client: Client) -> None:
    weights = [3, 3, 3, 9, 1, 1]  # MiB; a single one may be more than a message has else
    items = [BulkItem(str(i), {}, bytes(weight * MIB)) for i, weight in enumerate(weights)]
    sending = Sending(client, items, Task("img2txt"))
    sending.until_sent(6)
    assert sizes_of_messages(client) == [2, 1, 1, 2]
    client.cancel_batch(BATCH)
    assert codes(sending.results()) == dict.fromkeys(range(6), "canceled")


def test_a_rerun_sends_nothing_twice(client: Client) -> None:
    first = Sending(client, prompts(100))
    first.until_sent(100)
    messages = [client.record(bulk_job_id(BATCH, n)) for n in range(2)]
    messages_of = messages_key(client.settings.key_prefix, str(BULK))
    again = Sending(client, prompts(100))
    client.cancel(messages[1].id)
    until(lambda: client.queue(BULK).depth == 1, WAIT_S)
    client.cancel(messages[0].id)
    assert codes(again.results()) == codes(first.results()) == dict.fromkeys(range(100), "canceled")
    assert client.redis.llen(messages_of) == 2
    assert [client.record(m.id).params for m in messages] == [m.params for m in messages]
    assert client.batch(BATCH).total == 100


def test_a_rerun_with_other_items_is_a_conflict(client: Client) -> None:
    first = Sending(client, prompts(3))
    first.until_sent(3)
    with pytest.raises(IdempotencyConflict, match=BATCH):
        list(client.map_items(each(prompts(3, count=2)), batch_id=BATCH))
    with pytest.raises(IdempotencyConflict, match=BATCH):
        list(client.map_items(each(prompts(3), Task("img2txt")), batch_id=BATCH))
    client.cancel_batch(BATCH)
    first.results()


def test_a_full_queue_holds_the_sender_up_and_loses_nothing(settings: Settings) -> None:
    with Client(settings.model_copy(update={"max_queue_length": 2})) as client:
        sending = Sending(client, prompts(200))
        for number in range(4):
            until(lambda: sending.sent() == min(200, (number + 2) * 64), WAIT_S)  # noqa: B023
            assert client.queue(BULK).depth <= 2
            client.cancel(bulk_job_id(BATCH, number))
        assert codes(sending.results()) == dict.fromkeys(range(200), "canceled")


def test_a_sender_waits_also_where_others_fill_the_queue(settings: Settings) -> None:
    with Client(settings.model_copy(update={"max_queue_length": 1})) as client:
        other = Sending(client, prompts(1), batch_id="other")
        other.until_sent(1)
        sending = Sending(client, prompts(1))
        client.cancel_batch("other")
        sending.until_sent(1)
        client.cancel_batch(BATCH)
        assert len(sending.results()) == len(other.results()) == 1


class Watched(ClientCalls):
    """Notes whether each check for what has ended may wait for it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.checks: list[bool] = []

    def more_ended(self, wait: Wait, *, block: bool = True) -> Call[list[str]]:
        self.checks.append(block)
        return super().more_ended(wait, block=block)


def test_a_sender_sleeps_until_a_full_queue_has_room(settings: Settings) -> None:
    with Client(settings, max_queue_length=1) as client:
        client.calls = calls = Watched(client.settings)
        sending = Sending(client, prompts(65))
        sending.until_sent(64)
        until(lambda: len(calls.checks) >= 3, WAIT_S)  # twice in vain
        client.cancel(bulk_job_id(BATCH, 0))
        sending.until_sent(65)
        client.cancel_batch(BATCH)
        sending.results()
        assert calls.checks[1:3] == [True, True]


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_item_that_cannot_be_sent_fails_alone(client: Client) -> None:
    deep, deeper = nested(1_021), nested(2_000)  # where msgpack only packs, and not even that
    bad = [
        BulkItem("huge", {"seed": 2**70}),
        BulkItem("deep", {"x": deep}),
        BulkItem("deeper", {"x": deeper}),
        BulkItem("\ud800", {"prompt": "p"}),
        BulkItem("object", {"prompt": object()}),
    ]
    sending = Sending(client, [*bad, *prompts(1)])
    sending.until_sent(1)
    client.cancel_batch(BATCH)
    assert list(codes(sending.results()).values()) == ["invalid_params"] * 5 + ["canceled"]


def test_failed_items_are_passed_on_as_they_come_and_not_gathered(client: Client) -> None:
    read = 0

    def failed() -> Iterator[ItemResult]:
        nonlocal read
        for read in range(1, 100_001):
            failure = Failure(code="invalid_params", message="no JSON")
            yield ItemResult(index=read - 1, custom_id=str(read), failure=failure)

    results = client.map_items(failed(), batch_id=BATCH)
    next(results)
    assert read <= 2 * MOST_FAILED
    assert sum(1 for _ in results) == 99_999


def test_nothing_to_do_is_done_at_once(client: Client) -> None:
    assert list(client.map_txt2img([], batch_id=BATCH)) == []
    with pytest.raises(JobNotFound):
        client.batch(BATCH)


@at_once(
    "custom_id, stem",
    [
        ("p-1", "p-1"),
        ("a/1", "a_1~7"),
        ("../x", "_x~7"),
        ("/", "_~7"),
        (".", "~7"),
        ("x" * 512, "x" * 60 + "~7"),
    ],
)
def test_pictures_have_names_that_no_other_item_has(custom_id: str, stem: str) -> None:
    assert stem_of(ItemResult(index=7, custom_id=custom_id)) == stem


# -- batches ----------------------------------------------------------------------------


def test_a_batch_knows_how_far_it_is(client: Client) -> None:
    sending = Sending(client, prompts(70))
    sending.until_sent(70)
    status = client.batch(BATCH)
    assert (status.task, status.total, status.completed, status.failed) == (BULK, 70, 0, 0)
    assert (status.messages, status.is_done) == ({JobState.QUEUED: 2}, False)
    client.cancel(bulk_job_id(BATCH, 1))
    status = client.batch(BATCH)
    assert status.messages == {JobState.QUEUED: 1, JobState.CANCELED: 1}
    assert (status.failed, status.is_done) == (6, False)
    status = client.cancel_batch(BATCH)
    assert (status.messages, status.failed, status.is_done) == ({JobState.CANCELED: 2}, 70, True)
    sending.results()


def test_a_batch_that_was_forgotten_is_not_found_when_its_last_message_ends(client: Client) -> None:
    sending = Sending(client, prompts(70))
    sending.until_sent(70)
    client.cancel(bulk_job_id(BATCH, 0))
    client.redis.delete(batch_key(client.settings.key_prefix, BATCH))  # as its retention does
    client.cancel(bulk_job_id(BATCH, 1))
    with pytest.raises(JobNotFound, match=BATCH):
        client.batch(BATCH)
    sending.results()


def test_a_batch_is_kept_for_as_long_as_one_of_its_messages_waits(
    client: Client, admin: Any
) -> None:
    key = batch_key(client.settings.key_prefix, BATCH)
    sending = Sending(client, prompts(70))
    sending.until_sent(70)
    client.cancel(bulk_job_id(BATCH, 0))
    assert admin.ttl(key) == -1
    client.cancel(bulk_job_id(BATCH, 1))
    assert admin.ttl(key) > 0
    sending.results()


def test_a_message_that_is_run_again_when_its_record_is_gone_is_counted_once(
    client: Client,
) -> None:
    sending = Sending(client, prompts(70))
    sending.until_sent(70)
    for number in range(2):
        client.cancel(bulk_job_id(BATCH, number))
    sending.results()
    client.redis.delete(job_key(client.settings.key_prefix, bulk_job_id(BATCH, 0)))
    again = Sending(client, prompts(70))
    until(lambda: not client.batch(BATCH).is_done, WAIT_S)
    status = client.batch(BATCH)
    assert status.messages == {JobState.QUEUED: 1, JobState.CANCELED: 2}
    status = client.cancel_batch(BATCH)
    assert (status.total, status.failed, status.is_done) == (70, 70, True)
    again.results()


def test_of_a_batch_that_somebody_has_canceled_nothing_more_is_sent(client: Client) -> None:
    goes_on = threading.Event()

    def items() -> Iterator[BulkItem]:
        yield from prompts(65)  # the last one tells that the message before it is full
        goes_on.wait(WAIT_S)

    found = client.map_items(each(items()), batch_id=BATCH)
    sending = Sending(client, found)
    sending.until_sent(64)
    client.cancel_batch(BATCH)
    goes_on.set()
    assert set(codes(sending.results()).values()) == {"canceled"}
    assert client.batch(BATCH).total == 64
    again = list(client.map_items(each(prompts(65)), batch_id=BATCH))
    assert {r.failure.code for r in again if r.failure} == {"canceled"}
    assert (len(again), client.batch(BATCH).total) == (65, 64)


def test_an_unknown_batch_is_not_found(client: Client) -> None:
    with pytest.raises(JobNotFound, match="no-such-batch"):
        client.batch("no-such-batch")
    with pytest.raises(JobNotFound, match="no-such-batch"):
        client.cancel_batch("no-such-batch")


@at_once("batch_id", ["../../x", "x" * 101, "a b", ".", "a\n", "a:b"])
def test_an_id_that_no_batch_can_have_is_refused(client: Client, batch_id: str) -> None:
    for call in (client.batch, client.cancel_batch):
        with pytest.raises(InvalidParams, match="batch id"):
            call(batch_id)
    with pytest.raises(InvalidParams, match="batch id"):
        client.map_txt2img(["a circle"], batch_id=batch_id)


@pytest.mark.parametrize(("ending", "code"), [("cancel", "canceled"), ("fail", "timed_out")])
def test_what_was_finished_of_a_message_is_kept(client: Client, ending: str, code: str) -> None:
    sending = Sending(client, prompts(5))
    sending.until_sent(5)
    attempt = started(client)
    done = [ItemResult(index=i, custom_id=f"c{i}", seed=i) for i in (0, 1)]
    put_part(client.storage, attempt.job, attempt.number, done)
    if ending == "cancel":
        client.cancel_batch(BATCH)
    else:
        client.run(client.ledger.fail(attempt, Failure(code=code, message="it took too long")))
    results = sending.results()
    assert codes(results) == {0: None, 1: None, 2: code, 3: code, 4: code}
    assert [results[0], results[1]] == done
    assert [results[i].custom_id for i in range(5)] == [f"c{i}" for i in range(5)]


def test_items_whose_results_were_damaged_in_the_store_fail_alone(client: Client) -> None:
    sending = Sending(client, prompts(3))
    sending.until_sent(3)
    attempt, parts = started_with_parts(client, 3)
    client.storage.put(parts[1].key, b"", "application/jsonl")  # as a power cut leaves it
    result = JobResult(
        job=attempt.job,
        task=BULK,
        params={},
        parts=tuple(parts),
        completed=3,
        model="m",
        bundle_version="1",
        timings=TIMINGS,
        batch_size=1,
        attempt=1,
    )
    client.run(client.ledger.succeed(attempt, result))
    assert codes(sending.results()) == {0: None, 1: "blob_damaged", 2: None}


def test_what_was_canceled_is_said_to_be_also_beside_damaged_results(client: Client) -> None:
    sending = Sending(client, prompts(3))
    sending.until_sent(3)
    _, parts = started_with_parts(client, 2)
    client.storage.put(parts[1].key, b'{"index": 1, "cus', "application/jsonl")
    client.cancel_batch(BATCH)
    assert codes(sending.results()) == {0: None, 1: "canceled", 2: "canceled"}


def test_a_batch_is_forgotten_of_which_nothing_was_sent(client: Client, admin: Any) -> None:
    wanted = {Queue(Task("txt2img")): 64, Queue(Task("img2txt")): 32}
    key = batch_key(client.settings.key_prefix, BATCH)
    assert client.run(client.ledger.limits(BATCH, wanted)) == wanted
    assert 0 < admin.ttl(key) <= client.settings.retention_s
    sending = Sending(client, prompts(1))
    sending.until_sent(1)
    assert client.run(client.ledger.limits(BATCH, dict.fromkeys(wanted, 8))) == wanted
    assert admin.ttl(key) == -1
    client.cancel_batch(BATCH)
    sending.results()


def test_results_of_an_earlier_batch_of_the_same_id_are_none_of_this_one(client: Client) -> None:
    """Its records are gone by their retention, its files by nothing yet."""
    job_id = bulk_job_id(BATCH, 0)
    earlier = [ItemResult(index=0, custom_id="c0", seed=99)]
    part = put_part(client.storage, job_id, 1, earlier)
    path = Path(urlsplit(client.settings.storage_url).path) / part.key
    os.utime(path, (time.time() - 86_400,) * 2)
    sending = Sending(client, prompts(1))
    sending.until_sent(1)
    client.cancel_batch(BATCH)
    assert codes(sending.results()) == {0: "canceled"}


# -- seeds ------------------------------------------------------------------------------


def seeds_sent(client: Client, batch_id: str, **options: Any) -> list[int]:
    """What a run of three prompts sent as their seeds."""
    found = client.map_txt2img(["a", "b", "c"], batch_id=batch_id, **options)
    sending = Sending(client, found, batch_id=batch_id)
    sending.until_sent(3)
    items = unpack_items(client.read(bulk_params(client, batch_id, 0).input))
    client.cancel_batch(batch_id)
    assert len(sending.results()) == 3
    return [item.params["seed"] for item in items]


def test_seeds_follow_from_the_batch_and_the_item(client: Client) -> None:
    seeds = seeds_sent(client, "one")
    assert seeds_sent(client, "one") == seeds
    assert len(set(seeds + seeds_sent(client, "two"))) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_given_seed_goes_on_from_picture_to_picture(client: Client) -> None:
    assert seeds_sent(client, BATCH, seed=2**32 - 3, count=2) == [2**32 - 3, 2**32 - 1, 1]


def test_seeds_of_ten_thousand_items_differ() -> None:
    assert len({item_seed(BATCH, i) for i in range(10_000)}) > 9_990


# -- batch files ------------------------------------------------------------------------


def request(custom_id: Any, **fields: Any) -> dict[str, Any]:
    line = {"custom_id": custom_id, "url": "/v1/txt2img", "body": {"prompt": "a circle"}}
    return line | fields


def picture(custom_id: str, image: Any) -> dict[str, Any]:
    return request(custom_id, url="/v1/img2txt", body={"image": image})


def read_file(folder: Path, lines: list[Any], task: Task | None = None) -> list[Any]:
    path = folder / "in.jsonl"
    packed = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
    path.write_bytes(b"\n".join(packed))
    file = BatchFile(path, task, BATCH, max_image_bytes=LIMIT, models=KnownModels)
    found = list(file.items())
    assert file.total == len(found)
    return [line if isinstance(line, ItemResult) else line[1] for line in found]


BAD_LINES: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"{nonsense", "line 2", "not JSON"),
    "no text": (b'{"\xff\xfe', "line 2", "the line is not UTF-8: byte 3 is 0xff"),
    "too deep": (b"[" * 9_999, "line 2", "nested too deeply"),
    "a number too long": (
        b'{"a": ' + b"7" * 5_000 + b"}",
        "line 2",
        "a number with too many digits",
    ),
    "too much": (b"[" * 100_000, "line 2", "more JSON values"),
    "not an object": (b"[1, 2]", "line 2", "not a JSON object"),
    "an unknown url": (request("x", url="/v1/chat"), "x", "/v1/chat"),
    "a url that is none": (request("x", url=["a"]), "x", "/v1/txt2img or /v1/img2txt"),
    "an unknown field": (request("x", bdoy={}), "x", "did you mean 'body'?"),
    "an unknown param": (
        request("x", body={"prompt": "a", "sede": 7}),
        "x",
        "body: unknown field 'sede': did you mean 'seed'?",
    ),
    "an option of single jobs": (
        request("x", body={"prompt": "a", "webhook_url": "https://a.example"}),
        "x",
        "unknown field 'webhook_url': known: prompt, count",
    ),
    "a param of the other kind": (
        request("x", body={"prompt": "a", "beam_width": 4}),
        "x",
        "'beam_width'",
    ),
    "custom_id that is a number": (request(5), "line 2", "custom_id"),
    "custom_id that is null": (request(None), "line 2", "custom_id"),
    "custom_id that is empty": (request(""), "line 2", "custom_id"),
    "custom_id that is too long": (request("x" * 513), "line 2", "custom_id"),
    "custom_id that was used": (request("first"), "line 2", "used in an earlier line"),
    "body that is no object": (request("x", body="a circle"), "x", "body"),
    "no body": ({"custom_id": "x", "url": "/v1/txt2img"}, "x", "body"),
}
BAD_PICTURES: dict[str, tuple[Any, str, str]] = {
    "a missing file": (
        {"path": "none.png"},
        "invalid_image",
        "/none.png cannot be read: No such file or directory",
    ),
    "a folder": ({"path": "."}, "invalid_image", "cannot be read: Is a directory"),
    "a path that is none": ({"path": "a\0b"}, "invalid_image", "cannot be read"),
    "no base64": ({"data": "!!"}, "invalid_image", "base64"),
    "no text as base64": ({"data": 5}, "invalid_image", "base64"),
    "a file that is too large": ({"path": "large.png"}, "image_too_large", f"{LIMIT + 1} bytes"),
    "a file that hides its size": (
        {"path": "/proc/self/smaps"},
        "image_too_large",
        f"more than the {LIMIT} bytes",
    ),
    "too much base64": (
        {"data": base64.b64encode(bytes(LIMIT + 1)).decode()},
        "image_too_large",
        f"{LIMIT + 1} bytes",
    ),
    "a data: URL of text": ({"data": "data:text/plain,hello"}, "invalid_image", "is not base64"),
    "not an object": ("photo.png", "invalid_params", "body.image"),
    "an unknown field": ({"dta": "Z29vZA=="}, "invalid_params", "did you mean 'data'?"),
    "nothing": ({}, "invalid_params", "body.image: give one of path, data, key"),
    "two pictures": (
        {"key": "inputs/a", "data": "Z29vZA=="},
        "invalid_params",
        "body.image: give one of path, data, key",
    ),
    "a digest of what has none": (
        {"data": "Z29vZA==", "sha256": "0" * 64},
        "invalid_params",
        "unknown field 'sha256': known: path, data, key",
    ),
}


@at_once("bad, custom_id, says", BAD_LINES.values())
def test_a_bad_line_fails_alone(tmp_path: Path, bad: Any, custom_id: str, says: str) -> None:
    first, failed, last = read_file(tmp_path, [request("first"), bad, request("last")])
    assert (first.custom_id, last.custom_id) == ("first", "last")
    assert isinstance(first, BulkItem)
    assert isinstance(last, BulkItem)
    assert isinstance(failed, ItemResult)
    assert (failed.index, failed.custom_id) == (1, custom_id)
    assert failed.failure is not None
    assert failed.failure.code == "invalid_params"
    assert says in failed.failure.message


@at_once("bad", [b"{nonsense", b"[]", request("x", url=["a"])])
def test_a_bad_first_line_is_no_reason_to_give_the_file_up(tmp_path: Path, bad: Any) -> None:
    failed, item = read_file(tmp_path, [bad, request("a")])
    assert isinstance(failed, ItemResult)
    assert isinstance(item, BulkItem)


@at_once("image, code, says", BAD_PICTURES.values())
def test_a_bad_picture_fails_alone(
    tmp_path: Path, client: Client, image: Any, code: str, says: str
) -> None:
    (tmp_path / "good.png").write_bytes(b"good")
    (tmp_path / "large.png").write_bytes(bytes(LIMIT + 1))
    good = picture("a", {"path": "good.png"})
    item, failed, data = read_file(
        tmp_path, [good, picture("x", image), picture("b", {"data": "Z29vZA=="})]
    )
    assert (item.image, data.image) == (b"good", b"good")
    assert (failed.index, failed.custom_id, failed.failure.code) == (1, "x", code)
    assert says in failed.failure.message


@at_once(
    "image, says",
    [
        (
            {"path": "good.png"},
            "body.image.path: an uploaded batch cannot name files of the server",
        ),
        ({"url": "https://a.example"}, "body.image: unknown field 'url': known: data, key"),
        ({}, "body.image: give one of data, key"),
    ],
)
def test_a_file_of_somebody_else_names_no_file_of_this_machine(
    tmp_path: Path, image: Any, says: str
) -> None:
    (tmp_path / "good.png").write_bytes(b"good")
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(picture("x", image)))
    [failed] = BatchFile(path, None, BATCH, LIMIT, models=KnownModels, is_ours=False).items()
    assert isinstance(failed, ItemResult)
    assert failed.failure is not None
    assert failed.failure.message.startswith(says)


@pytest.mark.parametrize(
    "data",
    [
        "+/+/Zz8=",
        "-_-_Zz8=",
        "-_-_Zz8",
        "+/+/\n Zz8=\n",
        "data:image/png;base64,+/+/Zz8=",
        "data:;base64,%2B/%2b/Zz8%3D",
        "DATA:image/png;charset=x;BASE64,-_-_Zz8",
    ],
)
def test_every_way_to_write_base64_is_read(data: str) -> None:
    assert decoded(data, "image.data") == b"\xfb\xff\xbf\x67\x3f"


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        ["aGk="],
        "photo.jpg",
        "https://a.example/a.png",
        "é",
        "abcde",
        "aGk=aGk=",
        "data:image/png,abc",
        "data:image/png;base64,!!",
    ],
)
def test_what_is_not_base64_is_said_as_such(data: Any) -> None:
    with pytest.raises(InvalidImage, match=r"^image\.data is .*not base64"):
        decoded(data, "image.data")


@at_once(
    "data, says",
    [
        ("iVBORw0KGgoAAAAN*UhEUg==", "its character 17 is '*'"),
        ("iVBORw0K\nGgoAA!AN", "its character 15 is '!'"),
        ("photo.jpg", "its character 6 is '.'"),
        ("aGk=aGk=", "its character 4 is '='"),
        ("data:image/png;base64,iVB(", "its character 26 is '('"),
        ("abcde", "5 characters are one too many or too few"),
        ("abcde" + "=" * 1_000_000, "5 characters are one too many or too few"),
    ],
)
def test_of_base64_with_a_wrong_character_this_is_named(data: str, says: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        decoded(data, "image.data")
    assert str(caught.value).startswith(f"image.data is not base64: {says}: write ")


def test_a_file_may_mix_kinds(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [picture("a", {"data": "Z29vZA=="}), request("b"), {"body": {"image": {"key": "k"}}}]
    path.write_text("\n".join(map(json.dumps, lines)))
    file = BatchFile(path, None, BATCH, LIMIT, models=KnownModels)
    assert file.only_task is Task("img2txt")  # as far as it was read
    tasks = [line[0] for line in file.items() if not isinstance(line, ItemResult)]
    assert tasks == [Task("img2txt"), Task("txt2img"), Task("img2txt")]
    assert file.only_task is None


def test_a_line_without_a_name_is_named_by_its_number(tmp_path: Path) -> None:
    items = read_file(
        tmp_path, [b"", {"body": {"prompt": "a"}}, b" ", request("b")], Task("txt2img")
    )
    assert [item.custom_id for item in items] == ["line 2", "b"]


def test_prompts_of_a_file_have_seeds_of_their_own(tmp_path: Path) -> None:
    seeded = request("b", body={"prompt": "a circle", "seed": 0})
    first, second = read_file(tmp_path, [request("a"), seeded])
    assert (first.params["seed"], second.params["seed"]) == (item_seed(BATCH, 0), 0)


def test_a_file_without_any_url_needs_a_task(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="--task"):
        read_file(tmp_path, [{"body": {"prompt": "a"}}])
    with pytest.raises(InvalidParams, match="cannot be read"):
        BatchFile(tmp_path / "none.jsonl", None, BATCH, LIMIT, models=KnownModels)


@at_once(
    "text, says",
    [
        (b"", "the file is empty: write one request per line"),
        (b"\n \n", "the file is empty: write one request per line"),
        (
            b"hello\nworld",
            "no line of the file can be read: line 1: the line is not JSON: Expecting",
        ),
        (b"\n\x80\n", "no line of the file can be read: line 2: the line is not UTF-8: byte 1 is"),
        (b'{nonsense\n{"body": {}}', "no line of the file has a url /v1/txt2img or /v1/img2txt:"),
    ],
)
def test_a_file_without_any_task_says_what_it_is_instead(
    tmp_path: Path, text: bytes, says: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(text)
    with pytest.raises(InvalidParams) as caught:
        BatchFile(path, None, BATCH, LIMIT, models=KnownModels, is_ours=False)
    assert str(caught.value).startswith(says)


def test_a_result_is_a_line_with_a_response_or_an_error() -> None:
    failure = Failure(code="invalid_image", message="no image")
    good = ItemResult(index=3, custom_id="a", seed=7, unknown_words=("zorg",))
    bad = ItemResult(index=4, custom_id="b\n", failure=failure)
    assert json.loads(result_line(BATCH, good)) == {
        "id": f"{BATCH}.3",
        "custom_id": "a",
        "error": None,
        "response": {"status_code": 200, "body": {"seed": 7, "unknown_words": ["zorg"]}},
    }
    line = result_line(BATCH, bad)
    assert "\n" not in line
    assert json.loads(line) == {
        "id": f"{BATCH}.4",
        "custom_id": "b\n",
        "response": None,
        "error": {"code": "invalid_image", "message": "no image"},
    }


# -- waiting ----------------------------------------------------------------------------


def test_jobs_that_end_out_of_order_are_all_seen(client: Client) -> None:
    jobs = [client.txt2img("a circle") for _ in range(150)]
    early, late = jobs[60:], jobs[:60]
    for job in reversed(early):
        job.cancel()
    completed = client.as_completed(jobs, timeout_s=WAIT_S)
    assert {job.id for job in islice(completed, len(early))} == {job.id for job in early}
    for job in reversed(late):
        job.cancel()
    assert sorted(job.id for job in completed) == sorted(job.id for job in late)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_job_can_be_added_to_a_wait(client: Client, is_new: bool) -> None:
    wait = client.run(client.calls.wait([]))
    assert not wait
    for _ in range(2):
        job = client.txt2img("a circle")
        job.cancel()
        wait.add(job.id, is_new=is_new)
        more = client.calls.more_ended(wait)
        assert (client.run(more) or client.run(more)) == [job.id]  # the first may only check
        assert not wait


# -- running ----------------------------------------------------------------------------


@contextmanager
def running(settings: Settings, folder: Path) -> Iterator[tuple[FakeHost, LoopRunner]]:
    """A fake host, and the runner of a worker that is joined to it."""
    with serving(folder / "host.sock") as host, looping(settings, folder / "host.sock") as runner:
        yield host, runner


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[tuple[FakeHost, LoopRunner]]:
    """It runs four items at once."""
    path = tmp_path / "run"
    with running(settings.model_copy(update={"bulk_batch": 4}), path) as worker:
        yield worker


def work(runner: LoopRunner, task: Task = BULK, number: int = 0) -> Ending:
    return runner.run(TakenMessage(bulk_job_id(BATCH, number), task, {}, WORKER, is_recorded=True))


def png(side: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


def names(*numbers: int) -> list[str]:
    return [f"p{i}" for i in numbers]


def test_a_message_runs_in_parts_and_every_item_has_its_result(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    sending = Sending(client, prompts(10, count=2))
    sending.until_sent(10)
    result = work(runner)
    assert isinstance(result, JobResult)
    assert host.batches == [names(0, 1, 2, 3), names(4, 5, 6, 7), names(8, 9)]
    assert (result.completed, result.failed, len(result.parts)) == (10, 0, 3)
    found = sending.results()
    assert {(r.custom_id, r.seed, len(r.images)) for r in found.values()} == {
        (f"c{i}", i, 2) for i in range(10)
    }
    assert found[7].images[1].key == result_key(bulk_job_id(BATCH, 0), "7-1.png")
    assert Image.open(io.BytesIO(client.read(found[7].images[1]))).size == (SIDE, SIDE)
    status = client.batch(BATCH)
    assert (status.completed, status.failed, status.is_done) == (10, 0, True)


def test_a_rerun_reads_what_was_made_and_runs_nothing(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    sending = Sending(client, prompts(5))
    sending.until_sent(5)
    work(runner)
    again = list(client.map_items(each(prompts(5)), batch_id=BATCH))
    assert {r.index: r for r in again} == sending.results()
    assert client.queue(BULK).depth == 0
    assert len(host.batches) == 2


def test_results_of_several_kinds_come_back_under_their_own_names(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    _, runner = worker
    items = [(Task("txt2img"), prompts(1)[0]), (Task("img2txt"), BulkItem("cap", {}, png()))]
    sending = Sending(client, client.map_items(items, batch_id=BATCH))
    sending.until_sent(2)
    work(runner, BULK, 0)
    work(runner, Task("img2txt.bulk"), 1)
    drawn, described = sending.results()[0], sending.results()[1]
    assert (drawn.custom_id, len(drawn.images)) == ("c0", 1)
    assert (described.custom_id, described.captions[0].text) == ("cap", "a picture")


def test_a_bad_prompt_fails_alone(client: Client, worker: tuple[FakeHost, LoopRunner]) -> None:
    host, runner = worker
    bad: dict[int, dict[str, Any]] = {
        1: {"prompt": ""},
        2: {"prompt": 5},
        4: {"prompt": "p", "count": 99},
        5: {},
    }
    items = [item._replace(params=bad.get(i, item.params)) for i, item in enumerate(prompts(7))]
    sending = Sending(client, items)
    sending.until_sent(7)
    work(runner)
    found = codes(sending.results())
    assert [i for i, code in found.items() if code is None] == [0, 3, 6]
    assert {found[i] for i in bad} <= {"invalid_params", "invalid_prompt"}
    assert host.batches == [names(0, 3), names(6)]
    status = client.batch(BATCH)
    assert (status.completed, status.failed) == (3, 4)


def test_after_a_part_that_nothing_was_asked_of_the_next_is_no_larger(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    items = prompts(20)
    for i in range(4):
        items[i] = items[i]._replace(params={"prompt": ""})
    sending = Sending(client, items)
    sending.until_sent(20)
    work(runner)
    assert host.batches[:2] == [names(4, 5, 6, 7), names(8, 9, 10, 11)]
    sending.results()


def test_a_broken_picture_fails_alone(client: Client, worker: tuple[FakeHost, LoopRunner]) -> None:
    host, runner = worker
    stored = client.upload(png()).model_dump(mode="json")
    damaged = client.upload(png(side=9))
    client.storage.put(damaged.key, b"other bytes", "image/png")
    items = [
        BulkItem("bytes", {}, png()),
        BulkItem("garbage", {}, b"no image"),
        BulkItem("blob", {"image": stored}),
        BulkItem("none", {"image": {"key": "inputs/none"}}),
        BulkItem("half", {"image": {"key": "\ud800"}}),
        BulkItem("cut", {}, png()[:40]),
        BulkItem("nothing", {"image": {}}),
        BulkItem("empty", {}, b""),
        BulkItem("damaged", {"image": damaged.model_dump(mode="json")}),
    ]
    sending = Sending(client, items, Task("img2txt"))
    sending.until_sent(9)
    result = work(runner, Task("img2txt.bulk"))
    assert isinstance(result, JobResult)
    found = {r.custom_id: r for r in sending.results().values()}
    assert {name for name, r in found.items() if r.failure is None} == {"bytes", "blob"}
    assert all(found[name].captions[0].text == "a picture" for name in ("bytes", "blob"))
    assert host.batches == [[str((SIDE, SIDE, 3))] * 2]


def test_no_more_pictures_are_held_at_once_than_memory_is_meant_for_them(
    client: Client, worker: tuple[FakeHost, LoopRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, runner = worker
    monkeypatch.setattr(bulk, "MAX_PICTURES", 2 * SIDE * SIDE * 3 + 1)
    sending = Sending(client, [BulkItem(f"c{i}", {}, png()) for i in range(5)], Task("img2txt"))
    sending.until_sent(5)
    work(runner, Task("img2txt.bulk"))
    assert [len(batch) for batch in host.batches] == [2, 2, 1]
    assert all(result.captions for result in sending.results().values())


def test_an_attempt_goes_on_after_what_a_dead_worker_has_finished(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    sending = Sending(client, prompts(10))
    sending.until_sent(10)
    first = started(client)
    done = [ItemResult(index=i, custom_id=f"c{i}", seed=99) for i in (0, 1, 2, 5)]
    part = put_part(client.storage, first.job, first.number, done)
    client.run(client.ledger.abandon(WORKER, [first.job]))
    result = work(runner)
    assert isinstance(result, JobResult)
    assert host.batches == [names(3, 4, 6, 7), names(8, 9)]
    assert (result.attempt, result.parts[0].key, len(result.parts)) == (2, part.key, 3)
    found = sending.results()
    assert sorted(i for i, r in found.items() if r.seed == 99) == [0, 1, 2, 5]
    assert codes(found) == dict.fromkeys(range(10), None)


def test_what_was_damaged_of_a_dead_workers_results_runs_again(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    sending = Sending(client, prompts(3))
    sending.until_sent(3)
    first = started(client)
    for i in (0, 1):
        part = put_part(
            client.storage, first.job, 1, [ItemResult(index=i, custom_id=f"c{i}", seed=99)]
        )
    client.storage.put(part.key, b'{"index": 1, "cus', "application/jsonl")
    client.run(client.ledger.abandon(WORKER, [first.job]))
    result = work(runner)
    assert isinstance(result, JobResult)
    assert host.batches == [names(1, 2)]
    assert [r.seed for _, r in sorted(sending.results().items())] == [99, 1, 2]


def test_of_parts_that_overlap_one_is_used(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    """As when a worker that was taken for dead was not."""
    host, runner = worker
    sending = Sending(client, prompts(6))
    sending.until_sent(6)
    first = started(client)
    for number, indices in ((1, (0, 1, 2, 3)), (2, (2, 3, 4))):
        done = [ItemResult(index=i, custom_id=f"c{i}", seed=100 * number) for i in indices]
        put_part(client.storage, first.job, number, done)
        client.run(client.ledger.abandon(WORKER, [first.job]))
        started(client) if number == 1 else None
    result = work(runner)
    assert isinstance(result, JobResult)
    assert (result.attempt, result.completed, result.failed) == (3, 6, 0)
    assert host.batches == [names(4, 5)]
    assert [r.seed for _, r in sorted(sending.results().items())] == [100] * 4 + [4, 5]


def test_after_a_crash_the_unfinished_items_run_one_by_one(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    host, runner = worker
    host.deaths_left = 1
    items = prompts(10)
    items[5] = BulkItem("c5", {"prompt": "fatal", "seed": 5})
    sending = Sending(client, items)
    sending.until_sent(10)
    released = work(runner)
    assert isinstance(released, Released)
    assert released.failure.code == "model_host_crashed"
    until(lambda: len(finished_parts(client.storage, bulk_job_id(BATCH, 0), 0)) == 1, WAIT_S)
    result = work(runner)
    assert isinstance(result, JobResult)
    assert host.batches[0] == names(0, 1, 2, 3)
    assert host.batches[1] == ["p4", "fatal", "p6", "p7"]
    assert host.batches[2:] == [["p4"], ["fatal"], ["p6"], ["p7"], ["p8"], ["p9"]]
    assert (result.attempt, result.completed, result.failed) == (2, 10, 0)
    assert codes(sending.results()) == dict.fromkeys(range(10), None)


def test_an_item_with_which_the_host_always_dies_fails_alone(
    client: Client, worker: tuple[FakeHost, LoopRunner], settings: Settings
) -> None:
    host, runner = worker
    items = prompts(6)
    items[2] = BulkItem("c2", {"prompt": "fatal", "seed": 2})
    sending = Sending(client, items)
    sending.until_sent(6)
    assert isinstance(work(runner), Released)
    result = work(runner)
    assert isinstance(result, JobResult)
    assert (result.attempt, result.completed, result.failed) == (2, 5, 1)
    assert host.batches.count(["fatal"]) == settings.max_attempts
    expected = dict.fromkeys(range(6), None) | {2: "model_host_crashed"}
    assert codes(sending.results()) == expected


def test_the_parts_of_a_result_hold_every_item_once(
    client: Client, worker: tuple[FakeHost, LoopRunner]
) -> None:
    _, runner = worker
    sending = Sending(client, prompts(9))
    sending.until_sent(9)
    result = work(runner)
    assert isinstance(result, JobResult)
    rows = [row for part in result.parts for row in read_part(client.storage, part)]
    assert [row.index for row in rows] == list(range(9))
    sending.results()
