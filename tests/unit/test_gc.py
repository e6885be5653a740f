"""The garbage collector: what no record speaks of goes, what a live job needs never does."""

import time
from collections.abc import Iterator

import pytest

from crossmodal.jobs.bulk import MEDIA_TYPE, BulkItem, pack_items
from crossmodal.jobs.calls import Blocking, Steps, call
from crossmodal.jobs.connection import connect
from crossmodal.jobs.files import File, Files, bytes_of_file
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.names import CAPTIONS, job_key, new_job_id, preview_key, result_key
from crossmodal.jobs.params import BulkParams, parse_params
from crossmodal.jobs.record import Failure, ImageRef, ItemResult
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.parts import put_part
from crossmodal.settings import Settings
from crossmodal.storage import Storage, open_storage
from producer.commands.gc import Collector
from tests.ledgers import Ledger
from tests.unit.test_ledger import WORKER, result_of
from tests.waiting import until


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


@pytest.fixture(params=["file", "s3"])
def storage(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    if request.param == "s3":
        url = request.getfixturevalue("s3_url")
        return open_storage(settings.model_copy(update={"storage_url": url}))
    return open_storage(settings)


def collect(ledger: Ledger, storage: Storage, **ages: float) -> int:
    ages = {"older_than_s": -60.0, "grace_s": -60.0} | ages
    return Collector(ledger.runner, ledger.calls, storage, **ages).run().removed


def keys(storage: Storage) -> set[str]:
    return {blob.key for prefix in ("results", "inputs") for blob in storage.list(prefix)}


def put_result(storage: Storage, job_id: str, attempt: int = 1) -> ImageRef:
    storage.put(result_key(job_id, CAPTIONS), b"[]", "application/json")
    blob = storage.put(result_key(job_id, "0.png", attempt), b"png", "image/png")
    return ImageRef(**blob.model_dump(), width=1, height=1)


def running(ledger: Ledger, image: BlobRef | None = None) -> Attempt:
    job_id, text, task = new_job_id(), "{}", Task("txt2img")
    if image is not None:
        text, task = Img2TxtParams(image=image).model_dump_json(), Task("img2txt")
    ledger.submit(Submission(job_id, task, text, ""))
    attempt = ledger.start(job_id, WORKER)
    assert isinstance(attempt, Attempt)
    return attempt


def bulk(ledger: Ledger, storage: Storage, task: Task, items: list[BulkItem]) -> str:
    return submit_bulk(ledger, task, storage.put_input(pack_items(items), MEDIA_TYPE))


def submit_bulk(ledger: Ledger, task: Task, items: BlobRef) -> str:
    job_id = new_job_id()
    raw = {"input": items, "items": 1, "batch": job_id, "number": 0}
    params = parse_params(task, raw)
    assert isinstance(params, BulkParams)
    return ledger.submit(Submission(job_id, task, params.model_dump_json(), "", batch=params))[0]


def test_what_a_record_speaks_of_stays(ledger: Ledger, storage: Storage) -> None:
    picture = storage.put_input(b"picture", "image/png")
    attempt = running(ledger, picture)
    image = put_result(storage, attempt.job)
    ledger.succeed(attempt, result_of(attempt).model_copy(update={"images": (image,)}))
    before = keys(storage)
    assert len(before) == 3
    assert collect(ledger, storage) == 0
    assert keys(storage) == before


def test_what_a_live_job_has_stored_so_far_stays(ledger: Ledger, storage: Storage) -> None:
    picture = storage.put_input(b"picture", "image/png")
    put_result(storage, running(ledger, picture).job)
    assert collect(ledger, storage) == 0


def test_results_and_inputs_go_when_their_record_has_expired(
    ledger: Ledger, storage: Storage, settings: Settings
) -> None:
    attempt = running(ledger, storage.put_input(b"picture", "image/png"))
    put_result(storage, attempt.job)
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, attempt.job))
    assert collect(ledger, storage) == 3
    assert keys(storage) == set()


def test_an_input_that_another_job_needs_stays(
    ledger: Ledger, storage: Storage, settings: Settings
) -> None:
    picture = storage.put_input(b"picture", "image/png")
    gone = running(ledger, picture)
    running(ledger, picture)
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, gone.job))
    assert collect(ledger, storage) == 0


def test_a_result_that_is_the_input_of_another_job_stays(ledger: Ledger, storage: Storage) -> None:
    image = put_result(storage, new_job_id())  # its own record has expired
    running(ledger, BlobRef(key=image.key))
    assert collect(ledger, storage) == 1  # its captions
    assert image.key in keys(storage)


def test_what_a_bulk_message_needs_stays(
    ledger: Ledger, storage: Storage, settings: Settings
) -> None:
    """Its items, and the pictures that these name."""
    uploaded = storage.put_input(b"picture", "image/png")
    drawn = put_result(storage, new_job_id())  # whose own record has expired
    items = [BulkItem(str(i), {"image": {"key": b.key}}) for i, b in enumerate((uploaded, drawn))]
    job_id = bulk(ledger, storage, Task("img2txt.bulk"), [*items, BulkItem("odd", {"image": 5})])
    assert collect(ledger, storage) == 1  # the captions beside the picture
    assert {uploaded.key, drawn.key} <= keys(storage)
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, job_id))
    assert collect(ledger, storage) == 3
    assert keys(storage) == set()


def test_a_bulk_message_that_cannot_be_read_keeps_no_other_garbage(
    ledger: Ledger, storage: Storage
) -> None:
    damaged = storage.put_input(b"garbage", "application/octet-stream")
    lost = damaged.model_copy(update={"key": "inputs/none"})
    submit_bulk(ledger, Task("img2txt.bulk"), damaged)
    submit_bulk(ledger, Task("img2txt.bulk"), lost)
    storage.put_input(b"picture", "image/png")
    assert collect(ledger, storage) == 1
    assert keys(storage) == {damaged.key}


@pytest.mark.parametrize("ending", ["succeed", "fail", "cancel", "none"])
def test_what_a_bulk_job_made_stays_as_long_as_its_record(
    ledger: Ledger, storage: Storage, settings: Settings, ending: str
) -> None:
    job_id = bulk(ledger, storage, Task("txt2img.bulk"), [BulkItem("a", {"prompt": "a circle"})])
    attempt = ledger.start(job_id, WORKER)
    assert isinstance(attempt, Attempt)
    image = put_result(storage, job_id)
    done = [ItemResult(index=0, custom_id="a", images=(image,))]
    part = put_part(storage, job_id, attempt.number, done)
    if ending == "succeed":
        result = result_of(attempt).model_copy(update={"parts": (part,), "completed": 1})
        ledger.succeed(attempt, result)
    elif ending == "fail":
        ledger.fail(attempt, Failure(code="timed_out", message=""))
    elif ending == "cancel":
        ledger.cancel(job_id)
    before = keys(storage)
    assert len(before) == 4  # the items, the picture, the part, the captions
    assert collect(ledger, storage) == 0
    assert keys(storage) == before
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, job_id))
    assert collect(ledger, storage) == 4


def test_what_a_superseded_attempt_left_behind_goes(ledger: Ledger, storage: Storage) -> None:
    first = running(ledger)
    left = put_result(storage, first.job)
    ledger.abandon(WORKER, [first.job])
    second = ledger.start(first.job, WORKER)
    assert isinstance(second, Attempt)
    image = put_result(storage, first.job, second.number)
    ledger.succeed(second, result_of(second).model_copy(update={"images": (image,)}))
    assert collect(ledger, storage) == 2  # the picture, and the captions beside it
    assert left.key not in keys(storage)
    assert image.key in keys(storage)


def test_what_a_job_stored_that_then_failed_goes(ledger: Ledger, storage: Storage) -> None:
    attempt = running(ledger)
    put_result(storage, attempt.job)
    ledger.fail(attempt, Failure(code="timed_out", message=""))
    assert collect(ledger, storage) == 2


def test_a_file_stays_as_long_as_its_record(
    ledger: Ledger, storage: Storage, settings: Settings
) -> None:
    files, name = Files(settings), new_job_id()
    file = File(id=name, owner="", name="lines.jsonl", size=2, created_at=time.time())
    storage.put(bytes_of_file(name), b"{}", MEDIA_TYPE)
    ledger.runner.run(files.keep(file))
    assert collect(ledger, storage) == 0
    ledger.runner.run(files.forget(file))
    assert collect(ledger, storage) == 1


def test_a_preview_that_a_worker_left_goes(ledger: Ledger, storage: Storage) -> None:
    attempt = running(ledger)
    storage.put(preview_key(attempt.job, 1), b"jpeg", "image/jpeg")
    assert collect(ledger, storage, grace_s=3_600.0) == 0
    assert collect(ledger, storage) == 1


def test_nothing_young_is_removed(ledger: Ledger, storage: Storage) -> None:
    """So a collector that was given an empty Redis by mistake does no harm."""
    put_result(storage, new_job_id())
    storage.put_input(b"picture", "image/png")
    assert collect(ledger, storage, older_than_s=3_600) == 0


def test_a_dry_run_only_counts(ledger: Ledger, storage: Storage) -> None:
    put_result(storage, new_job_id())
    assert Collector(ledger.runner, ledger.calls, storage, -60, -60).run(dry_run=True).removed == 2
    assert len(keys(storage)) == 2


def test_a_picture_that_is_uploaded_again_meanwhile_stays(
    storage: Storage, settings: Settings, ledger: Ledger
) -> None:
    class Uploading(JobLedger):
        """As if somebody submitted an old picture while the records are being read."""

        @call
        def inputs(self, cursor: int = 0) -> Steps[tuple[list[tuple[Task, str]], int]]:
            yield Blocking(lambda: storage.put_input(b"picture", "image/png"))
            return (yield from super().inputs(cursor))

    ledger.calls = Uploading(settings)
    old = storage.put_input(b"picture", "image/png")
    later_s = 1.1 if storage.url.startswith("s3:") else 0.01  # S3 has whole seconds
    until(lambda: time.time() > next(storage.list("inputs")).modified_at + later_s)
    assert collect(ledger, storage) == 0
    assert old.key in keys(storage)
