"""The main job on real parts: submitted here, run by worker processes, left in the store."""

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from PIL import Image

from crossmodal.errors import JobExpired, JobNotFound, ResultTimeout
from crossmodal.jobs.names import CAPTIONS, new_job_id, result_key
from crossmodal.jobs.record import JobResult, JobState
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.task import Task, tasks
from crossmodal.storage import open_storage
from producer import AsyncClient, Client, IdempotencyConflict, JobCanceled, JobFailed
from tests.at_once import at_once
from tests.commands import Done, run_command
from tests.conftest import RunningStack
from tests.waiting import until
from tests.workers import suspended

PROMPT = "a large red circle on a white background"
WAIT_S = 60
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286


def test_a_prompt_becomes_a_picture_and_the_picture_a_caption(client: Client) -> None:
    image = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images[0]
    png = client.read(image)
    assert Image.open(io.BytesIO(png)).size == (image.width, image.height) == (128, 128)
    captions = client.img2txt(png, count=2).result(timeout_s=WAIT_S).captions
    assert len(captions) == 2
    assert "red circle" in captions[0].text


def test_a_result_says_all_about_its_job(client: Client) -> None:
    job = client.txt2img("a zorgish red circle", seed=5, count=3, metadata={"order": [1, "é"]})
    result = job.result(timeout_s=WAIT_S)
    assert (result.job, result.task, result.seed, result.attempt) == (job.id, Task("txt2img"), 5, 1)
    assert result.unknown_words == ("zorgish",)
    assert result.metadata == {"order": [1, "é"]}
    assert result.model == "scenes"
    assert re.fullmatch(r"[0-9a-f]{16}", result.bundle_version)
    assert [i.key for i in result.images] == [result_key(job.id, f"{i}.png") for i in range(3)]
    assert all(i.media_type == "image/png" and i.sha256 for i in result.images)
    t = result.timings
    assert t.inference_s > 0
    assert t.store_s > 0
    assert t.total_s >= t.queued_s + t.batch_wait_s + t.inference_s


def test_captions_are_found_in_the_store_by_the_job(client: Client, stack: RunningStack) -> None:
    picture = client.read(client.txt2img(PROMPT, seed=1).result(timeout_s=WAIT_S).images[0])
    result = client.img2txt(picture, count=2).result(timeout_s=WAIT_S)
    stored = open_storage(stack.settings).get(BlobRef(key=result_key(result.job, CAPTIONS)))
    assert json.loads(stored) == [caption.model_dump() for caption in result.captions]


def test_a_png_says_how_it_was_made(client: Client) -> None:
    result = client.txt2img(PROMPT, seed=41, count=2).result(timeout_s=WAIT_S)
    text = Image.open(io.BytesIO(client.read(result.images[1]))).info["parameters"]
    assert text.startswith(PROMPT + "\n")
    assert "Seed: 42" in text
    assert f"Model hash: {result.bundle_version}" in text


def test_pictures_are_stored_as_the_files_that_are_asked_for(client: Client) -> None:
    png = client.txt2img(PROMPT, seed=41).result(timeout_s=WAIT_S)
    job = client.txt2img(PROMPT, seed=41, count=2, format="webp", quality=80)
    result = job.result(timeout_s=WAIT_S)
    assert [i.key for i in result.images] == [result_key(job.id, f"{i}.webp") for i in range(2)]
    assert {i.media_type for i in result.images} == {"image/webp"}
    webp, drawn = (Image.open(io.BytesIO(client.read(r.images[0]))) for r in (result, png))
    assert (webp.format, webp.size, webp.mode) == ("WEBP", (128, 128), "RGB")
    assert webp.getexif().get_ifd(EXIF_IFD)[USER_COMMENT] == (
        b"UNICODE\0" + drawn.info["parameters"].encode("utf-16-be")
    )
    [bulk] = client.map_txt2img([PROMPT], seed=41, format="webp", quality=80)
    assert (bulk.images[0].media_type, bulk.images[0].key[-8:]) == ("image/webp", "0-0.webp")
    assert bulk.images[0].sha256 == result.images[0].sha256
    [again] = client.txt2img(PROMPT, seed=41).result(timeout_s=WAIT_S).images
    assert (again.sha256, again.media_type) == (png.images[0].sha256, "image/png")


def test_the_same_prompt_and_seed_give_the_same_bytes_alone_and_in_a_crowd(
    client: Client, stack: RunningStack
) -> None:
    alone = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images[0].sha256
    with suspended(stack.model_host):  # so that all who can ask it wait for it together
        crowd = [client.txt2img(PROMPT, seed=7)]
        crowd += [client.txt2img(f"a small blue star {i}", seed=i) for i in range(16)]
        until(lambda: client.queue(Task("txt2img")).running >= 6, WAIT_S)
    results = [job.result(timeout_s=WAIT_S) for job in crowd]
    assert results[0].images[0].sha256 == alone
    assert max(result.batch_size for result in results) > 1


def test_positional_arguments_of_a_plain_sender_fail_its_job(
    client: Client, stack: RunningStack
) -> None:
    from celery import Celery

    with Celery(broker=stack.env["CELERY_BROKER_URL"]) as app:
        job_id = app.send_task("crossmodal.txt2img", args=[PROMPT]).id
    until(lambda: is_known(client, job_id))
    with pytest.raises(JobFailed, match="positional arguments: give all params by name"):
        client.job(job_id).result(timeout_s=WAIT_S)


def test_a_job_is_found_again_by_its_id(client: Client) -> None:
    job = client.txt2img(PROMPT)
    assert client.job(job.id).result(timeout_s=WAIT_S).job == job.id
    assert client.job(job.id).status().state is JobState.SUCCEEDED


def test_an_unknown_id_is_not_found_and_never_pending(client: Client) -> None:
    with pytest.raises(JobNotFound):
        client.job(new_job_id())


def test_jobs_come_back_as_they_complete(client: Client) -> None:
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(12)]
    done = list(client.as_completed(jobs, timeout_s=WAIT_S))
    assert sorted(j.id for j in done) == sorted(j.id for j in jobs)


def test_a_repeated_key_gives_the_same_job(client: Client) -> None:
    key = new_job_id()
    first = client.txt2img(PROMPT, idempotency_key=key)
    assert client.txt2img(PROMPT, idempotency_key=key).id == first.id
    first.result(timeout_s=WAIT_S)
    assert client.txt2img(PROMPT, idempotency_key=key).id == first.id
    with pytest.raises(IdempotencyConflict):
        client.txt2img("a blue star", idempotency_key=key)


def test_a_wait_that_is_too_short_says_so_and_the_job_goes_on(
    client: Client, stack: RunningStack
) -> None:
    with suspended(stack.model_host):
        job = client.txt2img(PROMPT, count=16)
        with pytest.raises(ResultTimeout, match=job.id):
            job.result(timeout_s=0.001)
    assert job.result(timeout_s=WAIT_S).images


def test_an_expired_job_never_runs(client: Client) -> None:
    job = client.txt2img(PROMPT, expires_in_s=0.0)
    with pytest.raises(JobExpired):
        job.result(timeout_s=WAIT_S)


def test_a_canceled_job_has_no_result(client: Client, stack: RunningStack) -> None:
    with suspended(stack.model_host):
        others = [client.txt2img(PROMPT, seed=i) for i in range(12)]
        job = client.txt2img(PROMPT)
        assert job.cancel() is JobState.CANCELED
    with pytest.raises(JobCanceled):
        job.result(timeout_s=WAIT_S)
    for other in client.as_completed(others, WAIT_S):
        assert other.status().state is JobState.SUCCEEDED
    assert job.status().state is JobState.CANCELED


def test_many_waits_in_one_event_loop_do_not_block_it(stack: RunningStack) -> None:
    async def scenario() -> list[JobResult]:
        async with AsyncClient(stack.settings) as client:
            with suspended(stack.model_host):
                jobs = [await client.txt2img(PROMPT, seed=i) for i in range(24)]
                waits = asyncio.gather(*(job.result(timeout_s=WAIT_S) for job in jobs))
                for _ in range(5):
                    await asyncio.sleep(0.01)  # the loop turns
                assert not waits.done()
            results = await waits
            png = await client.read(results[0].images[0])
            caption = await (await client.img2txt(png)).result(timeout_s=WAIT_S)
            assert caption.captions
            found = [job async for job in client.as_completed(jobs, timeout_s=WAIT_S)]
            assert len(found) == 24
            return results

    assert len(asyncio.run(scenario())) == 24


def test_a_bare_celery_message_becomes_a_job(client: Client, stack: RunningStack) -> None:
    job_id = send_plain(stack, "crossmodal.txt2img", {"prompt": PROMPT, "seed": 7})
    until(lambda: is_known(client, job_id))
    result = client.job(job_id).result(timeout_s=WAIT_S)
    same = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S)
    assert result.images[0].sha256 == same.images[0].sha256
    shown = run_cli(stack, "status", job_id)
    assert shown.returncode == 0
    assert "succeeded" in shown.stdout
    fields = {"prompt": PROMPT, "seed": 7, "format": "webp", "embed_metadata": False}
    silent = send_plain(stack, "crossmodal.txt2img", fields)
    until(lambda: is_known(client, silent))
    [image] = client.job(silent).result(timeout_s=WAIT_S).images
    assert (image.key, image.media_type) == (result_key(silent, "0.webp"), "image/webp")


def test_the_queue_knows_its_workers(client: Client) -> None:
    workers = {worker.name: worker.queues for worker in client.workers()}
    served = {name.partition(".")[0]: set(queues) for name, queues in workers.items()}
    own = {f"{task.kind.name}.scenes{'.bulk' * task.is_bulk}" for task in tasks()}
    assert served == {"cpu": {"celery", *map(str, tasks()), *own}}


def test_the_command_line_draws_and_captions(stack: RunningStack, tmp_path: Path) -> None:
    out = tmp_path / "circle.png"
    drawn = run_cli(stack, "txt2img", PROMPT, "--seed", "7", "-n", "2", "-o", str(out), "--json")
    assert drawn.returncode == 0, drawn.stderr
    assert json.loads(drawn.stdout)["seed"] == 7
    files = [tmp_path / "circle-0.png", tmp_path / "circle-1.png"]
    captioned = run_cli(stack, "img2txt", *map(str, files))
    assert captioned.returncode == 0, captioned.stderr
    assert captioned.stdout.count("red circle") == 2
    job_id = json.loads(run_cli(stack, "txt2img", PROMPT, "--no-wait", "--json").stdout)[0]["id"]
    assert run_cli(stack, "wait", job_id, "--timeout", "60").returncode == 0
    assert json.loads(run_cli(stack, "result", job_id, "--json").stdout)["job"] == job_id
    assert run_cli(stack, "cancel", job_id).returncode == 1
    queues = json.loads(run_cli(stack, "queue", "--json").stdout)
    assert [q["queue"] for q in queues] == [str(task) for task in tasks()]
    assert queues[0]["finished"]["succeeded"] > 0


def test_the_command_line_writes_what_was_stored(
    client: Client, stack: RunningStack, tmp_path: Path
) -> None:
    out = tmp_path / "circle.jpg"
    options = ("--seed", "7", "--format", "jpeg", "--no-embed-metadata", "-o", str(out), "--json")
    drawn = run_cli(stack, "txt2img", PROMPT, *options)
    assert drawn.returncode == 0, drawn.stderr
    [image] = JobResult.model_validate_json(drawn.stdout).images
    assert (image.media_type, out.read_bytes()) == ("image/jpeg", client.read(image))
    assert len(Image.open(io.BytesIO(out.read_bytes())).getexif()) == 0


def test_the_command_line_has_exit_statuses(stack: RunningStack, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    failed = run_cli(stack, "txt2img", "zorg frob")
    assert (failed.returncode, "unknown_words" in failed.stderr) == (1, True)
    assert run_cli(stack, "txt2img", "").returncode == 2
    assert run_cli(stack, "txt2img", "x", "-n", "99").returncode == 2
    assert run_cli(stack, "status", new_job_id()).returncode == 1
    assert run_cli(stack, "img2txt", str(text)).returncode == 1
    assert run_cli(stack, "nonsense").returncode == 2


def test_one_bad_file_does_not_keep_the_others_from_their_captions(
    client: Client, stack: RunningStack, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    result = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S)
    good.write_bytes(client.read(result.images[0]))
    bad.write_text("no image")
    shown = run_cli(stack, "img2txt", str(bad), str(good))
    assert shown.returncode == 1
    assert "red circle" in shown.stdout


def test_doctor_is_content_with_a_running_stack(stack: RunningStack) -> None:
    shown = run_cli(stack, "doctor", "--json")
    assert shown.returncode == 0, shown.stdout
    assert {f["subject"] for f in json.loads(shown.stdout)} >= {
        "queue",
        "store",
        "bundle",
        "devices",
    }


def is_known(client: Client, job_id: str) -> bool:
    try:
        client.job(job_id)
    except JobNotFound:
        return False
    return True


def send_plain(
    stack: RunningStack,
    task: str,
    kwargs: dict[str, object],
    job_id: str | None = None,
    **options: Any,
) -> str:
    """Send a message with nothing but Celery; returns its id."""
    with Celery(broker=stack.env["CELERY_BROKER_URL"]) as app:
        return str(app.send_task(task, kwargs=kwargs, task_id=job_id, **options).id)


def run_cli(stack: RunningStack, *args: str) -> Done:
    """What the `crossmodal` command does against the stack."""
    return run_command(stack.env, *args)


@at_once(
    "metadata",
    [{"__type__": "x", "__value__": 1}, {"n": 2**70}, {"deep": [[[{"é": None}]]]}, "text", 0],
)
def test_any_metadata_comes_back_untouched(client: Client, metadata: object) -> None:
    job = client.txt2img(PROMPT, metadata=metadata)  # type: ignore[arg-type]
    assert job.result(timeout_s=WAIT_S).metadata == metadata


def test_a_message_that_looks_like_markup_is_shown_as_it_is(
    client: Client, stack: RunningStack
) -> None:
    job = client.txt2img("[/zorg] frob [bold]")
    job.wait(timeout_s=WAIT_S)
    shown = run_cli(stack, "status", job.id)
    assert (shown.returncode, "[/zorg] frob [bold]" in shown.stdout) == (0, True)
