"""The client: submit jobs, follow them, read what they made."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from crossmodal.errors import InvalidImage, WrongState
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.listing import Listing, Page
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import RESULTS, Task, check_batch_id, new_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import (
    MAX_SEED,
    BlobRef,
    Img2TxtParams,
    Params,
    Txt2ImgParams,
    build_params,
    fingerprint,
    fix_seed,
    parse_params,
    task_of,
)
from crossmodal.jobs.record import (
    BatchStatus,
    Failure,
    ItemResult,
    Job,
    JobEvent,
    JobState,
    JobStatus,
    QueueStatus,
    WorkerInfo,
)
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings, overridden
from crossmodal.storage import Storage, open_storage
from crossmodal.vision.media import check_size, media_type
from producer.bulk import Batch, Request, fitting
from producer.handle import JobHandle
from producer.seeds import item_seed
from producer.waiting import Wait

Picture = bytes | str | Path | BlobRef
"""A picture to caption: the bytes of a file, its path, or a blob that is stored already."""


class Client:
    """Submits jobs to the queue and store that the environment names. Safe to share by threads.

    Keyword arguments override single settings, of the environment or of those that are given;
    `InvalidSetting` is raised for what is none. A Redis that does not answer is given up
    after `connect_timeout_s`, an object store after `storage_timeout_s`; a wait takes as
    long as its own `timeout_s`.
    """

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        self.settings = overridden(settings, **overrides)
        self.redis: Any = connect(self.settings)
        self.ledger = JobLedger(self.settings, self.redis)
        self._dead: DeadLetters | None = None
        self._opened: Storage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        if self._dead is not None:
            self._dead.close()
        self.ledger.close()

    # -- submitting ---------------------------------------------------------------------

    def txt2img(
        self,
        prompt: str,
        *,
        count: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        metadata: JsonValue = None,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
    ) -> JobHandle:
        """Submit a job that draws `count` pictures of `prompt`; returns without waiting.

        Raises `InvalidParams`, `QueueFull`, `IdempotencyConflict` or `BrokerUnavailable`.
        """
        params = build_params(Txt2ImgParams, {
            "prompt": prompt, "count": count, "seed": seed, "temperature": temperature,
            "metadata": metadata,
        })  # fmt: skip
        return self.submit(params, idempotency_key=idempotency_key, expires_in_s=expires_in_s)

    def img2txt(
        self,
        image: Picture,
        *,
        count: int = 1,
        beam_width: int = 4,
        max_words: int = 40,
        metadata: JsonValue = None,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
    ) -> JobHandle:
        """Upload a picture and submit a job that captions it; returns without waiting.

        Raises what `txt2img` raises, and `InvalidImage` or `StorageUnavailable`.
        """
        params = build_params(Img2TxtParams, {
            "image": self.upload(image), "count": count, "beam_width": beam_width,
            "max_words": max_words, "metadata": metadata,
        })  # fmt: skip
        return self.submit(params, idempotency_key=idempotency_key, expires_in_s=expires_in_s)

    def submit(
        self,
        params: Params,
        *,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        origin: Origin = NOBODY,
    ) -> JobHandle:
        """Submit a job with params that are already built, on behalf of `origin`."""
        task = task_of(params)
        fixed = fix_seed(params)
        proposed = new_job_id()
        job_id, _ = self.ledger.submit(
            proposed, task, fixed.model_dump_json(),
            fingerprint(task, params, expires_in_s, origin.webhook),
            message=message_of(task, proposed, fixed),
            idempotency_key=idempotency_key, expires_in_s=expires_in_s, origin=origin,
        )  # fmt: skip
        return JobHandle(self, job_id)

    def retry(self, job_id: str, *, origin: Origin = NOBODY) -> JobHandle:
        """Submit what has failed, or was canceled or expired, as a new job; asked twice, as one.

        Raises `JobNotFound`, `WrongState`, and what `submit` raises.
        """
        job = self.ledger.get(job_id)
        if not job.state.is_terminal or job.state is JobState.SUCCEEDED or job.task.is_bulk:
            what = "a message of a batch" if job.task.is_bulk else job.state
            raise WrongState(
                f"job {job_id} is {what}: only single jobs that have failed, or were canceled or "
                "expired, can be run again"
            )
        params = parse_params(job.task, job.params)
        origin = origin._replace(webhook=origin.webhook or self.ledger.webhook(job_id))
        return self.submit(params, idempotency_key=f"retry:{job_id}", origin=origin)

    def delete(self, job_id: str) -> None:
        """Delete an ended job's record and what it stored. Raises `JobNotFound`, `WrongState`."""
        self.ledger.remove(job_id)
        for blob in list(self.storage.list(f"{RESULTS}/{job_id}")):
            self.storage.delete(blob.key)

    def upload(self, image: Picture, *, owner: str = "") -> BlobRef:
        """Store a picture under its digest, unless it is a blob already."""
        if isinstance(image, BlobRef):
            return image
        data = self._bytes_of(image)
        return self.storage.put_input(data, media_type(data), owner)

    def _bytes_of(self, image: bytes | str | Path) -> bytes:
        limit = self.settings.max_image_bytes
        data = image if isinstance(image, bytes) else _read_file(Path(image), limit)
        check_size(len(data), limit)
        return data

    # -- many at once -------------------------------------------------------------------

    def map_txt2img(
        self,
        prompts: Iterable[str],
        *,
        count: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        batch_id: str | None = None,
    ) -> Iterator[ItemResult]:
        """Draw every prompt; yields each result as it comes, `index` says of which prompt.

        Picture j of prompt i is drawn with `seed` + i * `count` + j, or with seeds that follow
        from `batch_id`: so with the same id, a rerun goes on where the last run stopped. A
        prompt that fails has a `failure`; the others do not mind. Raises `IdempotencyConflict`
        for an id that other prompts had, `BrokerUnavailable`, `StorageUnavailable`.
        """
        name = batch_id or new_job_id()

        def params(prompt: str, i: int) -> dict[str, Any]:
            first = item_seed(name, i) if seed is None else (seed + i * count) % (MAX_SEED + 1)
            return {"prompt": prompt, "count": count, "seed": first, "temperature": temperature}

        items = (
            (Task.TXT2IMG, BulkItem(str(i), params(prompt, i))) for i, prompt in enumerate(prompts)
        )
        return self.map_items(items, batch_id=name)

    def map_img2txt(
        self,
        images: Iterable[Picture],
        *,
        count: int = 1,
        beam_width: int = 4,
        max_words: int = 40,
        batch_id: str | None = None,
    ) -> Iterator[ItemResult]:
        """Caption every picture; yields each result as it comes, `index` says of which picture.

        Pictures are read as they are sent. See `map_txt2img` for the rest.
        """
        params = {"count": count, "beam_width": beam_width, "max_words": max_words}
        items = (self._picture_item(i, image, params) for i, image in enumerate(images))
        return self.map_items(items, batch_id=batch_id)

    def map_items(
        self, items: Iterable[Request | ItemResult], *,
        batch_id: str | None = None, origin: Origin = NOBODY,
        is_canceled: Callable[[], bool] = lambda: False,
    ) -> Iterator[ItemResult]:  # fmt: skip
        """`map_txt2img` and `map_img2txt` for items of any kind, with params of their own.

        Once `is_canceled`, no further message is sent; its items fail as `canceled`.
        """
        batch = Batch(self, check_batch_id(batch_id or new_job_id()), origin, is_canceled)
        return batch.results(items)

    def batch(self, batch_id: str) -> BatchStatus:
        """How far a batch is, as far as it was submitted. Raises `JobNotFound`."""
        return self._batches.status(batch_id)

    def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Cancel what a batch has not finished. Raises `JobNotFound`."""
        return self._batches.cancel(batch_id)

    def most_items(self, task: Task, batch_id: str) -> int:
        """How many items a message of this kind may have; it stays so for all of the batch."""
        known = self._batches.most(batch_id, task)
        return known or fitting(self.queue(task.in_bulk).mean_item_s)

    @property
    def _batches(self) -> Batches:
        return Batches(self.settings, self.ledger, self.redis)

    def _picture_item(
        self, index: int, image: Picture, params: dict[str, Any]
    ) -> Request | ItemResult:
        if isinstance(image, BlobRef):
            ref = image.model_dump(mode="json", exclude_none=True)
            return Task.IMG2TXT, BulkItem(str(index), params | {"image": ref})
        try:
            data = self._bytes_of(image)
        except InvalidImage as e:
            return ItemResult(index=index, custom_id=str(index), failure=Failure.of(e))
        return Task.IMG2TXT, BulkItem(str(index), params, data)

    # -- following ----------------------------------------------------------------------

    def job(self, job_id: str) -> JobHandle:
        """A handle for a job by its id. Raises `JobNotFound`."""
        self.ledger.get(job_id)
        return JobHandle(self, job_id)

    def record(self, job_id: str) -> Job:
        """All that the ledger knows of a job. Raises `JobNotFound`."""
        return self.ledger.get(job_id)

    def history(self, job_id: str) -> list[JobEvent]:
        """The job's steps so far, the latest hundred of them. Raises `JobNotFound`."""
        self.ledger.get(job_id)
        return self.ledger.history(job_id)

    def status(self, job_id: str) -> JobStatus:
        """State, attempt, queue position and estimated wait. Raises `JobNotFound`."""
        return self.ledger.status(job_id)

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job that has not ended; returns the state it is in now."""
        return self.ledger.cancel(job_id)

    def as_completed(
        self, jobs: Iterable[JobHandle], timeout_s: float | None = None
    ) -> Iterator[JobHandle]:
        """The jobs, each as soon as it has ended, however it ended. Raises `ResultTimeout`."""
        handles = {job.id: job for job in jobs}
        wait = self.new_wait(handles, timeout_s)
        while wait:
            for job_id in self.more_ended(wait):
                yield handles[job_id]

    def more_ended(self, wait: Wait, *, block: bool = True) -> list[str]:
        """Jobs that have ended since the last call; may be none, after a while or at once."""
        if look := wait.to_look_at():
            return wait.end(self.ledger.ended(look))
        with broker_errors(self.settings):
            reply = self.redis.execute_command(*wait.command(block=block))
        return wait.feed(reply)

    def new_wait(self, job_ids: Iterable[str], timeout_s: float | None) -> Wait:
        """A `Wait` for jobs, from now on."""
        return Wait(
            self.settings.key_prefix, job_ids, timeout_s,
            block_s=self.settings.connect_timeout_s / 2, since=self.ledger.now(),
        )  # fmt: skip

    def queue(self, task: Task) -> QueueStatus:
        """The queue of a kind of job."""
        return self.ledger.queue(task.queue)

    def queues(self) -> list[QueueStatus]:
        """The queues of all kinds of jobs."""
        return [self.queue(task) for task in Task]

    def workers(self) -> list[WorkerInfo]:
        """Workers that consume, each with the queues and the models that it serves."""
        return Workers(self.settings, self.redis).recent()

    def jobs(
        self, owner: str = "", *, state: JobState | None = None, task: Task | None = None,
        cursor: str | None = None, limit: int = 50,
    ) -> Page:  # fmt: skip
        """An owner's jobs, the latest first; those without an owner belong to nobody."""
        listing = Listing(self.settings, self.ledger, self.redis)
        return listing.page(owner, state=state, task=task, cursor=cursor, limit=limit)

    @property
    def webhooks(self) -> Deliveries:
        """What webhooks are told, and were."""
        return Deliveries(self.settings, self.redis)

    @property
    def keys(self) -> ApiKeys:
        """Who may use the HTTP gateway."""
        return ApiKeys(self.settings, self.redis)

    @property
    def dead_letters(self) -> DeadLetters:
        """What was given up, for operators."""
        if self._dead is None:
            self._dead = DeadLetters(self.settings, self.ledger, self.redis)
        return self._dead

    # -- reading ------------------------------------------------------------------------

    def read(self, blob: BlobRef) -> bytes:
        """The bytes of a blob. Raises `BlobNotFound` or `StorageUnavailable`."""
        return self.storage.get(blob)

    def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> str | None:
        """A URL under which anybody can read the blob for a while; None for a local folder."""
        return self.storage.sign(blob.key, expires_in_s)

    @property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        if self._opened is None:
            self._opened = open_storage(self.settings)
        return self._opened


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        check_size(path.stat().st_size, max_bytes)
        return path.read_bytes()
    except OSError as e:
        raise InvalidImage(f"the picture {path} cannot be read: {e.strerror}") from e
