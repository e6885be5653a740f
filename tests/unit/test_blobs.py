"""What task processes put into the object store."""

from crossmodal.jobs.names import Task, result_key
from crossmodal.jobs.params import BlobRef
from crossmodal.jobs.record import GeneratedCaption, JobResult, Timings
from crossmodal.settings import load_settings
from worker.blobs import Blobs

NO_TIME = Timings(queued_s=0, batch_wait_s=0, inference_s=0, store_s=0, total_s=0)
STORED = BlobRef(key=result_key("j", "result.json"))


def result(attempt: int) -> JobResult:
    return JobResult(
        job="j", task=Task.IMG2TXT, params={}, model="m", bundle_version="1", timings=NO_TIME,
        captions=(GeneratedCaption(text=f"of {attempt}", log_probability=0),), batch_size=1,
        attempt=attempt,
    )  # fmt: skip


def test_an_earlier_attempt_that_comes_late_does_not_replace_the_result(seaweed_url: str) -> None:
    blobs = Blobs(load_settings(storage_url=seaweed_url))
    for attempt in (1, 3, 2, 1):
        blobs.put_result(result(attempt))
    assert JobResult.model_validate_json(blobs.store.get(STORED)) == result(3)


def test_what_is_no_result_is_replaced(seaweed_url: str) -> None:
    blobs = Blobs(load_settings(storage_url=seaweed_url))
    blobs.store.put(STORED.key, b"{}", "application/json")
    blobs.put_result(result(1))
    assert JobResult.model_validate_json(blobs.store.get(STORED)) == result(1)
