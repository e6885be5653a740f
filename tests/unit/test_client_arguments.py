"""Arguments of a wrong type, to each method of a client: a sentence says what is expected."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossmodal.errors import (
    CrossmodalError,
    InvalidImage,
    InvalidParams,
    InvalidSetting,
    JobNotFound,
)
from crossmodal.testing import AsyncFakeClient, FakeClient
from producer import BulkItem, Client, Handle, Task

IDEA = "a red circle"
ITEM = BulkItem("a", {"prompt": IDEA})


@pytest.fixture
def client() -> Iterator[FakeClient]:
    with FakeClient() as client:
        yield client


Call = Callable[[Any], Any]
WRONG: dict[str, tuple[Call, str, str]] = {
    # name: a call, the code of its error, what that says
    "job": (lambda c: c.job(5), "invalid_params", r"the job is 5 \(int\): give a handle, or a"),
    "no job": (lambda c: c.record(None), "invalid_params", "the job is None"),
    "bytes": (lambda c: c.status(b"id"), "invalid_params", "give a handle, or a job's id as text"),
    "cancel": (lambda c: c.cancel(["id"]), "invalid_params", "the job is"),
    "history": (lambda c: c.history(1.5), "invalid_params", "the job is"),
    "retry": (lambda c: c.retry(5), "invalid_params", "the job is"),
    "delete": (lambda c: c.delete(5), "invalid_params", "the job is"),
    "one id": (lambda c: c.as_completed("id"), "invalid_params", "jobs is 'id' .*give a list"),
    "one handle": (lambda c: c.as_completed(c.txt2img(IDEA)), "invalid_params", "give a list"),
    "numbers": (lambda c: c.as_completed([5]), "invalid_params", "the job is 5"),
    "unknown": (lambda c: list(c.as_completed(["nobody"])), "job_not_found", "no job 'nobody'"),
    "no id": (lambda c: list(c.as_completed(["a b"])), "job_not_found", "no job 'a b'"),
    "patience": (lambda c: c.txt2img(IDEA).wait("5"), "invalid_params", "timeout_s is '5'"),
    "nan": (lambda c: c.as_completed([], float("nan")), "invalid_params", "timeout_s is nan"),
    "endless": (lambda c: c.as_completed([], 10**400), "invalid_params", "timeout_s .*a finite"),
    "past": (lambda c: c.as_completed([], -1), "invalid_params", "timeout_s is -1 .*0 or more"),
    "expired": (lambda c: c.txt2img(IDEA, expires_in_s=-1), "invalid_params", "-1 .*0 or more"),
    "never": (lambda c: c.txt2img(IDEA, expires_in_s=float("inf")), "invalid_params", "a finite"),
    "truth": (lambda c: c.txt2img(IDEA).result(True), "invalid_params", "timeout_s is True"),
    "prompt": (lambda c: c.txt2img(5), "invalid_params", "prompt: .*string"),
    "seed": (lambda c: c.txt2img(IDEA, seed="7"), "invalid_params", "seed: .*integer"),
    "expiry": (lambda c: c.txt2img(IDEA, expires_in_s="1"), "invalid_params", "expires_in_s"),
    "key": (lambda c: c.txt2img(IDEA, idempotency_key=5), "invalid_params", "idempotency_key is 5"),
    "params": (lambda c: c.submit({"prompt": IDEA}), "invalid_params", "give built ones, as"),
    "one prompt": (lambda c: c.map_txt2img(IDEA), "invalid_params", "prompts is .*give a list"),
    "no prompts": (lambda c: c.map_txt2img(None), "invalid_params", "prompts is None"),
    "seeds": (lambda c: c.map_txt2img([IDEA], seed="x"), "invalid_params", "seed: .*integer"),
    "count": (lambda c: c.map_txt2img([IDEA], count=17), "invalid_params", "count: .*16"),
    "width": (lambda c: c.map_img2txt([], beam_width=11), "invalid_params", "beam_width: .*10"),
    "batch id": (lambda c: c.map_txt2img([IDEA], batch_id=5), "invalid_params", "batch_id is 5"),
    "items": (lambda c: c.map_items(5), "invalid_params", "items is 5"),
    "an item": (lambda c: list(c.map_items([ITEM])), "invalid_params", r"give \(task, BulkItem"),
    "of what": (lambda c: list(c.map_items([("draw", ITEM)])), "invalid_params", "task is 'draw'"),
    "batch": (lambda c: c.batch(5), "invalid_params", "batch_id is 5"),
    "cancel_batch": (lambda c: c.cancel_batch(None), "invalid_params", "batch_id is None"),
    "queue": (lambda c: c.queue("celery"), "invalid_params", "give one of txt2img, img2txt"),
    "state": (lambda c: c.jobs(state="done"), "invalid_params", "state is 'done'.*succeeded"),
    "task": (lambda c: c.jobs(task=5), "invalid_params", "task is 5"),
    "owner": (lambda c: c.jobs(5), "invalid_params", "owner is 5"),
    "cursor": (lambda c: c.jobs(cursor=5), "invalid_params", "cursor is 5"),
    "limit": (lambda c: c.jobs(limit=0), "invalid_params", "limit is 0 .*>= 1"),
    "blob": (lambda c: c.read("results/x/0.png"), "invalid_params", "give a BlobRef"),
    "sign": (lambda c: c.sign("results/x/0.png"), "invalid_params", "give a BlobRef"),
    "picture": (lambda c: c.upload(5), "invalid_image", "cannot be of type int"),
    "whose": (lambda c: c.upload(b"BM", owner=5), "invalid_params", "owner is 5"),
}


def test_wrong_arguments_are_refused_with_what_is_expected(client: FakeClient) -> None:
    said = {}
    for name, (call, _, _) in WRONG.items():
        try:
            call(client)
        except CrossmodalError as e:
            said[name] = f"{e.code}: {e}"
    wrong = {
        n: said.get(n)
        for n, (_, code, says) in WRONG.items()
        if not re.match(f"{code}: .*{says}", said.get(n, ""))
    }
    assert wrong == {}


def test_the_asynchronous_client_says_the_same() -> None:
    async def ask() -> None:
        async with AsyncFakeClient() as client:
            wrong: Any = client
            with pytest.raises(InvalidParams, match="the job is 5"):
                await wrong.job(5)
            with pytest.raises(InvalidImage, match="of type int"):
                await wrong.img2txt(5)
            with pytest.raises(InvalidParams, match="give a list"):
                wrong.as_completed("id")
            with pytest.raises(InvalidParams, match="unknown field 'sede': did you mean 'seed'"):
                await wrong.txt2img(IDEA, sede=7)
            with pytest.raises(TypeError, match=r"^FakeClient\.txt2img\(\) .*'prompt'"):
                wrong.sync.txt2img()

    asyncio.run(ask())


def test_ids_are_taken_where_handles_are(client: FakeClient) -> None:
    client.held = True
    jobs = [client.txt2img(IDEA) for _ in range(3)]
    assert client.cancel(jobs[0]) == client.cancel(jobs[0].id) == "canceled"
    client.work()
    mixed: list[Handle | str] = [jobs[0].id, jobs[1], jobs[2].id, jobs[2]]
    assert {job.id for job in client.as_completed(mixed, timeout_s=5)} == {job.id for job in jobs}
    assert client.job(jobs[1]) == client.job(jobs[1].id) == jobs[1]
    client.delete(jobs[1])
    with pytest.raises(JobNotFound):
        client.record(jobs[1])


def test_kinds_and_states_are_taken_by_their_names(client: FakeClient) -> None:
    job = client.txt2img(IDEA)
    assert [found.id for found in client.jobs(state="succeeded", task="txt2img").jobs] == [job.id]
    assert client.queue("txt2img") == client.queue(Task("txt2img"))


def test_settings_are_no_url() -> None:
    with pytest.raises(InvalidSetting, match="give a Settings, or single ones by name"):
        Client("redis://127.0.0.1:6379/0")  # type: ignore[arg-type]


def test_a_misspelt_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match="'brokr_url': did you mean 'broker_url'"):
        Client(brokr_url="redis://127.0.0.1:6379/0")
    with pytest.raises(InvalidSetting, match=r"'zzz': docs/settings.md has them all"):
        Client(zzz=1)
