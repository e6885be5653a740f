"""A worker that dies in the middle of a bulk message: what it has finished is not done again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossmodal.jobs.names import bulk_job_id
from crossmodal.jobs.record import JobState
from crossmodal.parts import finished_parts, read_part
from producer import Client
from tests.waiting import until
from tests.workers import celery_worker, host_of, real_worker, suspended

PROMPT = "a large red circle on a white background"
WAIT_S = 90
BATCH = "killed"
ITEMS, MESSAGE = 70, 64


def test_a_killed_worker_costs_only_the_part_that_it_had_in_hand(
    short: dict[str, str], client: Client, tmp_path: Path
) -> None:
    short |= {"CROSSMODAL_BULK_BATCH": "4"}
    job_id = bulk_job_id(BATCH, 0)
    prompts = [PROMPT] * ITEMS
    with real_worker(short, tmp_path / "worker", 1) as worker, ThreadPoolExecutor() as threads:
        found = client.map_txt2img(prompts, count=8, seed=0, batch_id=BATCH)
        run = threads.submit(list, found)
        until(lambda: bool(finished_parts(client.storage, job_id, 0)), WAIT_S)
        with suspended(host_of(worker)):
            killed = celery_worker(worker)
            killed.kill()
            until(lambda: not killed.is_running(), WAIT_S)
            assert client.record(job_id).state is JobState.RUNNING
            kept = finished_parts(client.storage, job_id, 0)
        results = run.result(timeout=2 * WAIT_S)

    assert sorted(r.index for r in results) == list(range(ITEMS))
    assert all(r.failure is None and len(r.images) == 8 for r in results)
    job = client.record(job_id)
    assert job.result is not None
    assert job.result.attempt > 1
    first = [p for p in job.result.parts if p.key.count("/") == 2]  # results/<job>/0.jsonl
    assert {p.key for p in kept} <= {p.key for p in first}
    assert len(first) < len(job.result.parts)
    rows = [read_part(client.storage, part) for part in job.result.parts]
    assert sorted(r.index for part in rows for r in part) == list(range(MESSAGE))

    done_first = {r.index for part in first for r in read_part(client.storage, part)}
    drawn = [blob.key.split("/") for blob in client.storage.list(f"results/{job_id}")]
    drawn_again = {  # results/<job>/<attempt>/<item>-<picture>.png
        int(way[3].partition("-")[0]) for way in drawn if len(way) == 4 and way[3].endswith(".png")
    }
    assert drawn_again == set(range(MESSAGE)) - done_first
    status = client.batch(BATCH)
    assert (status.completed, status.failed, status.messages) == (ITEMS, 0, {JobState.SUCCEEDED: 2})
