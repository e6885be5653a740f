"""The client for tests of apps: what it shares with the real one, on both, and what it adds."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from crossmodal.errors import (
    GpuOutOfMemory,
    IdempotencyConflict,
    InvalidParams,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotFound,
    NotFaked,
    QueueFull,
    ResultTimeout,
    UnknownWords,
    WrongState,
)
from crossmodal.jobs.names import bulk_job_id
from crossmodal.jobs.record import ItemResult, JobState
from crossmodal.settings import Settings
from crossmodal.testing import AsyncFakeClient, FakeClient
from crossmodal.vision.media import media_type
from producer import BulkItem, Client, Img2TxtParams, Task, Txt2ImgParams
from producer.fake.worker import SIDE, FakeWorker, plain_captions, plain_pictures
from producer.pictures.png import write_png
from tests.waiting import until

IDEA = "a red circle"
PNG = write_png(b"\xff\0\0", 1, 1, 3)
WAIT_S = 10


@dataclass
class World:
    """A client whose jobs wait until they are `run`."""

    client: Client
    run: Callable[[str], object]


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The same on the fake and on a real Redis."""
    if request.param == "fake":
        with FakeClient(held=True, max_queue_length=3) as fake:
            yield World(fake, lambda job_id: fake.work())
        return
    settings: Settings = request.getfixturevalue("settings")
    with Client(settings, max_queue_length=3) as client:
        worker = FakeWorker(
            client.runner, client.ledger, client.storage, plain_pictures, plain_captions
        )
        yield World(client, worker.run)


def test_a_job_goes_its_way(world: World) -> None:
    job = world.client.txt2img(IDEA, count=2, seed=7, metadata={"for": "a test"})
    assert job.status().model_dump(exclude={"id", "waits_for"}) == {
        "state": "queued",
        "attempt": 0,
        "position": 0,
        "estimated_wait_s": None,
        "progress": None,
        "failure": None,
    }
    with pytest.raises(ResultTimeout):
        job.result(timeout_s=0)
    world.run(job.id)
    result = job.result(timeout_s=WAIT_S)
    assert (result.seed, result.metadata, len(result.images)) == (7, {"for": "a test"}, 2)
    assert [world.client.read(image) for image in result.images] == plain_pictures(
        Txt2ImgParams(prompt=IDEA, count=2, seed=7)
    )
    steps = [(event.state, event.attempt, event.code) for event in world.client.history(job)]
    assert steps == [("queued", 0, ""), ("running", 1, ""), ("succeeded", 1, "")]
    assert world.client.queue("txt2img").finished == {"succeeded": 1}


def test_a_seed_is_fixed_at_submission(world: World) -> None:
    job = world.client.txt2img(IDEA)
    seed = world.client.record(job).params["seed"]
    world.run(job.id)
    assert job.result(WAIT_S).seed == seed


def test_a_key_names_one_job(world: World) -> None:
    job = world.client.txt2img(IDEA, idempotency_key="k")
    assert world.client.txt2img(IDEA, idempotency_key="k") == job
    with pytest.raises(IdempotencyConflict, match=job.id):
        world.client.txt2img("a blue square", idempotency_key="k")


def test_a_canceled_job_ends_once_and_is_run_again_as_another(world: World) -> None:
    job = world.client.txt2img(IDEA)
    with pytest.raises(WrongState):
        world.client.retry(job)
    assert job.cancel() == job.cancel() == JobState.CANCELED
    world.run(job.id)
    with pytest.raises(JobCanceled):
        job.result(timeout_s=0)
    again = world.client.retry(job)
    assert again != job
    assert world.client.retry(job) == again
    world.run(again.id)
    assert again.wait(WAIT_S) is JobState.SUCCEEDED
    assert again.cancel() is JobState.SUCCEEDED


def test_a_job_expires(world: World) -> None:
    job = world.client.txt2img(IDEA, expires_in_s=0)
    world.run(job.id)
    with pytest.raises(JobExpired):
        job.result(timeout_s=WAIT_S)


def test_a_queue_has_a_limit(world: World) -> None:
    for _ in range(3):
        world.client.txt2img(IDEA)
    with pytest.raises(QueueFull, match="holds 3 jobs, 3 are allowed"):
        world.client.txt2img(IDEA)
    assert world.client.queue("txt2img").depth == 3


def test_only_ended_jobs_are_deleted_with_what_they_stored(world: World) -> None:
    job = world.client.txt2img(IDEA, idempotency_key="k")
    with pytest.raises(WrongState):
        world.client.delete(job)
    world.run(job.id)
    world.client.delete(job)
    assert not list(world.client.storage.list(f"results/{job.id}"))
    with pytest.raises(JobNotFound):
        world.client.job(job.id)
    assert world.client.txt2img(IDEA, idempotency_key="k") != job


def test_a_message_of_a_batch_is_neither_deleted_nor_run_again_by_itself() -> None:
    with FakeClient() as client:
        client.fail_next(GpuOutOfMemory("too large"))
        found = list(client.map_txt2img([IDEA], batch_id="b"))
        message = bulk_job_id("b", 0)
        for act in (client.delete, client.retry):
            with pytest.raises(WrongState, match=f"{message} is a message of a batch: only single"):
                act(message)
        assert list(client.map_txt2img([IDEA], batch_id="b")) == found


def test_jobs_are_listed_page_by_page(world: World) -> None:
    jobs = [world.client.txt2img(IDEA), world.client.img2txt(PNG), world.client.txt2img(IDEA)]
    jobs[0].cancel()
    first = world.client.jobs(limit=2)
    second = world.client.jobs(limit=2, cursor=first.next_cursor)
    assert [j.id for j in (*first.jobs, *second.jobs)] == [job.id for job in jobs[::-1]]
    assert [j.id for j in world.client.jobs(task="txt2img", state="queued").jobs] == [jobs[2].id]


def test_a_batch_is_answered_item_by_item(world: World) -> None:
    found = world.client.map_txt2img([IDEA, "", IDEA], seed=5, batch_id="b")
    results: list[object] = []
    reader = threading.Thread(target=lambda: results.extend(found))
    reader.start()
    while reader.is_alive():
        if world.client.queue("txt2img.bulk").depth:
            world.run("b.0")
        reader.join(0.01)
    by_index = {
        r.index: r for r in world.client.map_txt2img([IDEA, "", IDEA], seed=5, batch_id="b")
    }
    assert len(results) == len(by_index) == 3
    assert [by_index[i].seed for i in (0, 2)] == [5, 7]
    assert (by_index[1].failure or by_index[0]).code == "invalid_prompt"  # type: ignore[union-attr]
    status = world.client.batch("b")
    assert (status.total, status.completed, status.failed) == (3, 2, 1)
    assert status.is_done
    with pytest.raises(IdempotencyConflict):
        list(world.client.map_txt2img(["other"], seed=5, batch_id="b"))


def test_a_batch_is_canceled(world: World) -> None:
    found = world.client.map_txt2img([IDEA], batch_id="b")
    reader = threading.Thread(target=lambda: list(found))
    reader.start()
    while not world.client.queue("txt2img.bulk").depth:
        reader.join(0.01)
    assert world.client.cancel_batch("b").messages == {JobState.CANCELED: 1}
    reader.join()
    with pytest.raises(JobNotFound):
        world.client.batch("other")


# -- the fake alone ---------------------------------------------------------------------


def test_jobs_are_answered_as_they_are_submitted() -> None:
    with FakeClient() as client:
        assert client.txt2img(IDEA).status().state is JobState.SUCCEEDED
        [caption] = client.img2txt(PNG).result().captions
        assert caption.text == client.img2txt(PNG).result().captions[0].text
        assert [r.failure for r in client.map_txt2img([IDEA] * 3)] == [None] * 3
        assert client.workers()


def test_the_callers_functions_make_what_is_returned() -> None:
    def draw(params: Txt2ImgParams) -> list[bytes]:
        if "circle" not in params.prompt:
            raise UnknownWords(f"no word of {params.prompt!r} is known")
        return [PNG] * params.count

    def describe(params: Img2TxtParams, image: bytes) -> list[str]:
        return [f"{len(image)} bytes"]

    with FakeClient(draw=draw, describe=describe) as client:
        [image] = client.txt2img(IDEA).result().images
        assert (client.read(image), image.width, image.height) == (PNG, 1, 1)
        assert client.img2txt(image).result().captions[0].text == f"{len(PNG)} bytes"
        with pytest.raises(JobFailed, match="zorg") as caught:
            client.txt2img("zorg").result()
        assert caught.value.code == "unknown_words"
        with pytest.raises(JobFailed, match="outputs returned: 1, but count is 2") as caught:
            client.img2txt(PNG, count=2).result()
        assert caught.value.code == "internal_error"


def test_outputs_that_are_no_list_are_refused() -> None:
    client = FakeClient(describe=lambda params, image: "a dog")
    with client, pytest.raises(JobFailed, match="outputs are a str: return a list of them"):
        client.img2txt(PNG).result()


def test_pictures_have_the_format_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeClient() as client:
        [image] = client.txt2img(IDEA, format="webp", quality=80).result().images
        assert (image.media_type, image.key.rpartition(".")[2]) == ("image/webp", "webp")
        assert media_type(client.read(image)) == "image/webp"
        assert (image.width, image.height) == (SIDE, SIDE)
        [item] = client.map_txt2img([IDEA], format="jpeg")
        assert media_type(client.read(item.images[0])) == item.images[0].media_type == "image/jpeg"
        monkeypatch.setitem(sys.modules, "PIL", None)
        assert client.txt2img(IDEA).result().images
        with pytest.raises(JobFailed, match="WEBP needs Pillow") as caught:
            client.txt2img(IDEA, format="webp").result()
        assert caught.value.code == "extra_missing"


def test_what_is_made_of_a_canceled_job_comes_too_late() -> None:
    def draw(params: Txt2ImgParams) -> list[bytes]:
        [running] = client.jobs(state="running").jobs
        client.cancel(running.id)
        return [PNG]

    with FakeClient(draw=draw) as client:
        assert client.txt2img(IDEA).wait() is JobState.CANCELED


def test_items_of_several_pictures_share_no_seed() -> None:
    with FakeClient() as client:
        found = client.map_txt2img([IDEA] * 3, count=2, seed=2**32 - 3)
        assert {r.index: r.seed for r in found} == {0: 2**32 - 3, 1: 2**32 - 1, 2: 1}
        assert list(client.map_txt2img([])) == []


def test_a_batch_may_mix_kinds() -> None:
    items = [
        (Task("txt2img"), BulkItem("a", {"prompt": IDEA})),
        (Task("img2txt"), BulkItem("b", {}, PNG)),
    ]
    with FakeClient() as client:
        made = {
            r.index: len(r.images) - len(r.captions) for r in client.map_items(items, batch_id="b")
        }
        assert made == {0: 1, 1: -1}
        assert (client.batch("b").task, client.batch("b").completed) == (None, 2)


def test_failures_and_refusals_are_set() -> None:
    with FakeClient() as client:
        client.fail_next(GpuOutOfMemory("too large"), times=2)
        client.refuse_next(QueueFull("enough", retry_after_s=3))
        with pytest.raises(QueueFull):
            client.txt2img(IDEA)
        failed = [client.txt2img(IDEA) for _ in range(3)]
        assert [job.status().state for job in failed] == ["failed", "failed", "succeeded"]
        with pytest.raises(JobFailed, match="too large") as caught:
            failed[0].result()
        assert (caught.value.code, caught.value.retryable) == ("gpu_out_of_memory", True)


@pytest.mark.parametrize("wrong", [5, None, QueueFull, ValueError("x")])
def test_only_errors_of_ours_are_set(wrong: Any) -> None:
    with FakeClient() as client:
        for have in (client.fail_next, client.refuse_next):
            with pytest.raises(
                InvalidParams, match=r"the error is .*: give one of crossmodal.errors"
            ):
                have(wrong)
            with pytest.raises(InvalidParams, match="times is 0"):
                have(QueueFull("enough"), times=0)
        assert client.txt2img(IDEA).result().images


def test_held_jobs_are_answered_the_oldest_first() -> None:
    with FakeClient(held=True) as client:
        jobs = [client.txt2img(IDEA) for _ in range(3)]
        assert client.work(max_jobs=2) == 2
        assert [job.status().state for job in jobs] == ["succeeded", "succeeded", "queued"]
        assert [client.work(), client.work()] == [1, 0]


def test_a_held_job_is_awaited_in_an_event_loop() -> None:
    async def draw() -> int:
        async with AsyncFakeClient(held=True) as client:
            job = await client.txt2img(IDEA)
            waiting = asyncio.create_task(job.result(WAIT_S))
            await asyncio.sleep(0)
            client.sync.work()
            assert [j.id async for j in client.as_completed([job.id])] == [job.id]
            items = [r async for r in client.map_txt2img([])]
            return len((await waiting).images) + len(items)

    assert asyncio.run(draw()) == 1


@pytest.mark.parametrize("refused", [0, 1_000])
def test_whoever_leaves_a_batch_before_an_item_has_come_leaves_no_thread(refused: int) -> None:
    """While its message waits for a worker, and while the queue is too full for one."""
    client = AsyncFakeClient(held=True, connect_timeout_s=0.1)
    fake = client.sync
    if refused:
        fake.refuse_next(QueueFull("enough", retry_after_s=0.05), times=refused)

    def has_begun() -> bool:
        return (
            len(fake.calls.ledger.refusals) < refused or fake.queue(Task("txt2img.bulk")).depth == 1
        )

    async def first() -> ItemResult:
        return await anext(client.map_txt2img([IDEA]))

    async def leave() -> None:
        waiting = asyncio.create_task(first())
        await asyncio.to_thread(until, has_begun, WAIT_S)
        waiting.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(leave()), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    is_left = thread.is_alive()
    fake.held = False  # so that a thread which goes on comes to its end, and the tests to theirs
    fake.calls.ledger.refusals.clear()
    fake.work()
    assert not is_left


def test_nothing_outside_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://nowhere.invalid/0")
    monkeypatch.setenv("CROSSMODAL_STORAGE_URL", "s3://nowhere")
    with FakeClient() as client:
        assert client.txt2img(IDEA).result().images
        lacking: dict[str, Callable[[], object]] = {
            "dead letters": lambda: client.dead_letters,
            "API keys": lambda: client.keys.create(""),
            "webhooks": lambda: client.webhooks.counts(),
            "PING": lambda: client.redis.ping(),
        }
        for what, ask in lacking.items():
            with pytest.raises(NotFaked, match=f"a fake client has no .* no {what}: ") as caught:
                ask()
            assert not caught.value.retryable
