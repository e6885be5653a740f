"""What a client can be asked, as calls: written once, run by the client and by its twin.

What they say of arguments and errors is what the clients' `help` shows. A job is returned by
its id, of which each client makes a handle of its own.
"""

from collections.abc import Iterable
from functools import cached_property

from pydantic import JsonValue

from crossmodal.errors import InvalidParams, WrongState
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.calls import Blocking, Steps, call
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.listing import Listing, Page
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import RESULTS, Task, new_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import (
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
    Job,
    JobEvent,
    JobState,
    JobStatus,
    QueueStatus,
    WorkerInfo,
)
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from crossmodal.storage import Storage, open_storage
from crossmodal.vision.media import media_type
from producer.checks import check_count, check_one_of, check_seconds, check_text, shown
from producer.handle import Handle, id_of
from producer.pictures import Picture, bytes_of
from producer.waiting import Wait


class ClientCalls:
    """The calls of a client; it holds no connection to Redis."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = JobLedger(settings)
        self.batches = Batches(settings, self.ledger)

    @cached_property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        return open_storage(self.settings)

    # -- submitting ---------------------------------------------------------------------

    @call
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
    ) -> Steps[str]:
        """Submit a job that draws `count` pictures of `prompt`; returns without waiting.

        Raises `InvalidParams`, `QueueFull`, `IdempotencyConflict` or `BrokerUnavailable`.
        """
        params = build_params(Txt2ImgParams, {
            "prompt": prompt, "count": count, "seed": seed, "temperature": temperature,
            "metadata": metadata,
        })  # fmt: skip
        return (yield from self.submit(
            params, idempotency_key=idempotency_key, expires_in_s=expires_in_s
        ))  # fmt: skip

    @call
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
    ) -> Steps[str]:
        """Upload a picture and submit a job that captions it; returns without waiting.

        Raises what `txt2img` raises, and `InvalidImage` or `StorageUnavailable`.
        """
        params = build_params(Img2TxtParams, {
            "image": (yield from self.upload(image)), "count": count, "beam_width": beam_width,
            "max_words": max_words, "metadata": metadata,
        })  # fmt: skip
        return (yield from self.submit(
            params, idempotency_key=idempotency_key, expires_in_s=expires_in_s
        ))  # fmt: skip

    @call
    def submit(
        self,
        params: Params,
        *,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        origin: Origin = NOBODY,
    ) -> Steps[str]:
        """Submit a job with params that are already built, on behalf of `origin`."""
        if not isinstance(params, Params):
            raise InvalidParams(f"params are {shown(params)}: give Txt2ImgParams or Img2TxtParams")
        if idempotency_key is not None:
            check_text("idempotency_key", idempotency_key)
        check_seconds("expires_in_s", expires_in_s)
        task = task_of(params)
        fixed = fix_seed(params)
        proposed = new_job_id()
        job_id, _ = yield from self.ledger.submit(
            proposed, task, fixed.model_dump_json(),
            fingerprint(task, params, expires_in_s, origin.webhook),
            message=message_of(task, proposed, fixed),
            idempotency_key=idempotency_key, expires_in_s=expires_in_s, origin=origin,
        )  # fmt: skip
        return job_id

    @call
    def retry(self, job: Handle | str, *, max_queued: int | None = None) -> Steps[str]:
        """Submit what has failed, or was canceled or expired, as a new job; asked twice, as one.

        It is its owner's as before, and told to the same webhook. `max_queued` is the limit of the
        API key that asks for it, if any: the owner's own comes first. Raises `JobNotFound`,
        `WrongState`, and what `submit` raises.
        """
        known = yield from self.record(job)
        if not known.state.is_terminal or known.state is JobState.SUCCEEDED or known.task.is_bulk:
            what = "a message of a batch" if known.task.is_bulk else known.state
            raise WrongState(
                f"job {known.id} is {what}: only single jobs that have failed, or were canceled or "
                "expired, can be run again"
            )
        if max_queued is not None:
            max_queued = yield from ApiKeys(self.settings).max_queued(known.owner, max_queued)
        webhook = yield from self.ledger.webhook(known.id)
        return (yield from self.submit(
            parse_params(known.task, known.params), idempotency_key=f"retry:{known.id}",
            origin=Origin(known.owner, max_queued, webhook=webhook),
        ))  # fmt: skip

    @call
    def delete(self, job: Handle | str) -> Steps[None]:
        """Delete an ended job's record and what it stored. Raises `JobNotFound`, `WrongState`."""
        known = yield from self.record(job)
        if known.task.is_bulk:
            raise WrongState(
                f"job {known.id} is a message of a batch: only single jobs can be deleted"
            )
        yield from self.ledger.remove(known.id)
        yield Blocking(lambda: self._delete_all(f"{RESULTS}/{known.id}"))

    def _delete_all(self, folder: str) -> None:
        for blob in list(self.storage.list(folder)):
            self.storage.delete(blob.key)

    @call
    def upload(self, image: Picture, *, owner: str = "") -> Steps[BlobRef]:
        """Store a picture under its digest, unless it is a blob already.

        Raises `InvalidImage` or `StorageUnavailable`.
        """
        if isinstance(image, BlobRef):
            return image
        stored: BlobRef = yield Blocking(lambda: self._put(image, owner))
        return stored

    def _put(self, image: Picture, owner: str) -> BlobRef:
        data = bytes_of(image, self.settings.max_image_bytes)
        return self.storage.put_input(data, media_type(data), check_text("owner", owner))

    # -- batches ------------------------------------------------------------------------

    @call
    def batch(self, batch_id: str) -> Steps[BatchStatus]:
        """How far a batch is, as far as it was submitted. Raises `JobNotFound`."""
        return (yield from self.batches.status(check_text("batch_id", batch_id)))

    @call
    def cancel_batch(self, batch_id: str) -> Steps[BatchStatus]:
        """Cancel what a batch has not finished. Raises `JobNotFound`."""
        return (yield from self.batches.cancel(check_text("batch_id", batch_id)))

    # -- following ----------------------------------------------------------------------

    @call
    def job(self, job: Handle | str) -> Steps[str]:
        """A handle for a job by its id. Raises `JobNotFound`."""
        return (yield from self.record(job)).id

    @call
    def record(self, job: Handle | str) -> Steps[Job]:
        """All that the ledger knows of a job. Raises `JobNotFound`."""
        return (yield from self.ledger.get(id_of(job)))

    @call
    def history(self, job: Handle | str) -> Steps[list[JobEvent]]:
        """The job's steps so far, the latest hundred of them. Raises `JobNotFound`."""
        _, events = yield from self.ledger.follow(id_of(job))
        return events

    @call
    def status(self, job: Handle | str) -> Steps[JobStatus]:
        """State, attempt, queue position and estimated wait. Raises `JobNotFound`."""
        return (yield from self.ledger.status(id_of(job)))

    @call
    def cancel(self, job: Handle | str) -> Steps[JobState]:
        """Cancel a job that has not ended; returns the state it is in now."""
        return (yield from self.ledger.cancel(id_of(job)))

    @call
    def ended(self, job: Handle | str, timeout_s: float | None = None) -> Steps[Job]:
        """The record of a job, once it has ended. Raises `JobNotFound` or `ResultTimeout`."""
        job_id = id_of(job)
        wait = yield from self.wait([job_id], timeout_s)
        while wait:
            yield from self.more_ended(wait)
        return (yield from self.ledger.get(job_id))

    @call
    def wait(self, job_ids: Iterable[str], timeout_s: float | None = None) -> Steps[Wait]:
        """A `Wait` for jobs, from now on, for `more_ended`."""
        timeout_s = check_seconds("timeout_s", timeout_s)
        return Wait(
            self.settings.key_prefix, job_ids, timeout_s,
            block_s=self.settings.connect_timeout_s / 2, since=(yield from self.ledger.now()),
        )  # fmt: skip

    @call
    def more_ended(self, wait: Wait, *, block: bool = True) -> Steps[list[str]]:
        """Jobs that have ended since the last call; may be none, after a while or at once."""
        if due := wait.to_check():
            return wait.end((yield from self.ledger.ended(due)))
        return wait.feed((yield wait.step(block=block)))

    @call
    def queue(self, task: Task | str) -> Steps[QueueStatus]:
        """The queue of a kind of job."""
        return (yield from self.ledger.queue(check_one_of("task", Task, task).queue))

    @call
    def queues(self) -> Steps[list[QueueStatus]]:
        """The queues of all kinds of jobs."""
        return (yield from self.ledger.queues([task.queue for task in Task]))

    @call
    def workers(self) -> Steps[list[WorkerInfo]]:
        """Workers that consume, each with the queues and the models that it serves."""
        return (yield from Workers(self.settings).recent())

    @call
    def jobs(
        self, owner: str = "", *, state: JobState | str | None = None,
        task: Task | str | None = None, cursor: str | None = None, limit: int = 50,
    ) -> Steps[Page]:  # fmt: skip
        """An owner's jobs, the latest first; those without an owner belong to nobody.

        The next page begins at this one's `next_cursor`. Raises `InvalidParams`.
        """
        return (yield from Listing(self.settings, self.ledger).page(
            check_text("owner", owner),
            state=None if state is None else check_one_of("state", JobState, state),
            task=None if task is None else check_one_of("task", Task, task),
            cursor=None if cursor is None else check_text("cursor", cursor),
            limit=check_count("limit", limit),
        ))  # fmt: skip

    # -- reading ------------------------------------------------------------------------

    @call
    def read(self, blob: BlobRef) -> Steps[bytes]:
        """The bytes of a blob. Raises `BlobNotFound` or `StorageUnavailable`."""
        data: bytes = yield Blocking(lambda: self.storage.get(_checked(blob)))
        return data

    @call
    def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> Steps[str | None]:
        """A URL under which anybody can read the blob for a while; None for a local folder."""
        if check_seconds("expires_in_s", expires_in_s) is None:
            raise InvalidParams("expires_in_s is None: give a number of seconds")
        url: str | None = yield Blocking(
            lambda: self.storage.sign(_checked(blob).key, expires_in_s)
        )
        return url


def _checked(blob: object) -> BlobRef:
    if not isinstance(blob, BlobRef):
        raise InvalidParams(
            f"the blob is {shown(blob)}: give a BlobRef, as one of a result's `images`"
        )
    return blob
