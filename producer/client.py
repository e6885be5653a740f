"""The client: submit jobs, follow them, read what they made."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from crossmodal.errors import InvalidParams, InvalidSetting, WrongState
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.listing import Listing, Page
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import RESULTS, Task, check_batch_id, new_job_id
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
    ItemResult,
    Job,
    JobEvent,
    JobState,
    JobStatus,
    QueueStatus,
    WorkerInfo,
)
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings, overridden
from crossmodal.storage import Storage, open_storage
from crossmodal.vision.media import media_type
from producer.bulk import Batch, Request, Results, fitting
from producer.checks import (
    check_count,
    check_one_of,
    check_seconds,
    check_text,
    shown,
)
from producer.handle import Handle, JobHandle, id_of, ids_of
from producer.items import checked_items, picture_items, prompt_items
from producer.operators import Keys, Letters, Webhooks
from producer.pictures import Picture, bytes_of
from producer.waiting import Wait, told


class Client:
    """Submits jobs to the queue and store that the environment names. Safe to share by threads.

    Keyword arguments override single settings, of the environment or of those that are given;
    `InvalidSetting` is raised for what is none. A Redis that does not answer is given up
    after `connect_timeout_s`, an object store after `storage_timeout_s`; a wait takes as
    long as its own `timeout_s`.
    """

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        if not isinstance(settings, Settings | None):
            raise InvalidSetting(
                f"the settings are {shown(settings)}: give a Settings, or single ones by name, as "
                "broker_url='redis://…'"
            )
        self.settings = overridden(settings, **overrides)
        self.runner = Runner(self.settings)
        self.run = self.runner.run
        self.redis: Any = self.runner.redis
        self.ledger = JobLedger(self.settings)
        self._opened: Storage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        self.runner.close()

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
        if not isinstance(params, Params):
            raise InvalidParams(f"params are {shown(params)}: give Txt2ImgParams or Img2TxtParams")
        if idempotency_key is not None:
            check_text("idempotency_key", idempotency_key)
        check_seconds("expires_in_s", expires_in_s)
        task = task_of(params)
        fixed = fix_seed(params)
        proposed = new_job_id()
        job_id, _ = self.run(self.ledger.submit(
            proposed, task, fixed.model_dump_json(),
            fingerprint(task, params, expires_in_s, origin.webhook),
            message=message_of(task, proposed, fixed),
            idempotency_key=idempotency_key, expires_in_s=expires_in_s, origin=origin,
        ))  # fmt: skip
        return JobHandle(self, job_id)

    def retry(self, job: Handle | str, *, max_queued: int | None = None) -> JobHandle:
        """Submit what has failed, or was canceled or expired, as a new job; asked twice, as one.

        It is its owner's as before, and told to the same webhook. `max_queued` is the limit of the
        API key that asks for it, if any: the owner's own comes first. Raises `JobNotFound`,
        `WrongState`, and what `submit` raises.
        """
        known = self.record(job)
        if not known.state.is_terminal or known.state is JobState.SUCCEEDED or known.task.is_bulk:
            what = "a message of a batch" if known.task.is_bulk else known.state
            raise WrongState(
                f"job {known.id} is {what}: only single jobs that have failed, or were canceled or "
                "expired, can be run again"
            )
        if max_queued is not None:
            max_queued = self.keys.max_queued(known.owner, max_queued)
        origin = Origin(known.owner, max_queued, webhook=self.run(self.ledger.webhook(known.id)))
        params = parse_params(known.task, known.params)
        return self.submit(params, idempotency_key=f"retry:{known.id}", origin=origin)

    def delete(self, job: Handle | str) -> None:
        """Delete an ended job's record and what it stored. Raises `JobNotFound`, `WrongState`."""
        known = self.record(job)
        if known.task.is_bulk:
            raise WrongState(
                f"job {known.id} is a message of a batch: only single jobs can be deleted"
            )
        self.run(self.ledger.remove(known.id))
        for blob in list(self.storage.list(f"{RESULTS}/{known.id}")):
            self.storage.delete(blob.key)

    def upload(self, image: Picture, *, owner: str = "") -> BlobRef:
        """Store a picture under its digest, unless it is a blob already.

        Raises `InvalidImage` or `StorageUnavailable`.
        """
        if isinstance(image, BlobRef):
            return image
        data = bytes_of(image, self.settings.max_image_bytes)
        return self.storage.put_input(data, media_type(data), check_text("owner", owner))

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
        prompt that fails has a `failure`; the others do not mind. Raises `InvalidParams`,
        `IdempotencyConflict` for an id that other prompts had, `BrokerUnavailable`,
        `StorageUnavailable`.
        """
        name = _batch_name(batch_id)
        options = {"count": count, "seed": seed, "temperature": temperature}
        return self.map_items(prompt_items(prompts, name, options), batch_id=name)

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
        options = {"count": count, "beam_width": beam_width, "max_words": max_words}
        items = picture_items(images, options, self.settings.max_image_bytes)
        return self.map_items(items, batch_id=batch_id)

    def map_items(
        self, items: Iterable[Request | ItemResult], *,
        batch_id: str | None = None, origin: Origin = NOBODY,
    ) -> Results:  # fmt: skip
        """`map_txt2img` and `map_img2txt` for items of any kind, with params of their own."""
        batch = Batch(self, _batch_name(batch_id), origin)
        return batch.results(checked_items(items))

    def batch(self, batch_id: str) -> BatchStatus:
        """How far a batch is, as far as it was submitted. Raises `JobNotFound`."""
        return self.run(self._batches.status(check_text("batch_id", batch_id)))

    def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Cancel what a batch has not finished. Raises `JobNotFound`."""
        return self.run(self._batches.cancel(check_text("batch_id", batch_id)))

    def _most_items(self, task: Task, batch_id: str) -> int:
        """How many items a message of this kind may have; it stays so for all of the batch."""
        known = self.run(self._batches.most(batch_id, task))
        return known or fitting(self.queue(task.in_bulk).mean_item_s)

    @property
    def _batches(self) -> Batches:
        return Batches(self.settings, self.ledger)

    # -- following ----------------------------------------------------------------------

    def job(self, job: Handle | str) -> JobHandle:
        """A handle for a job by its id. Raises `JobNotFound`."""
        return JobHandle(self, self.record(job).id)

    def record(self, job: Handle | str) -> Job:
        """All that the ledger knows of a job. Raises `JobNotFound`."""
        return self.run(self.ledger.get(id_of(job)))

    def history(self, job: Handle | str) -> list[JobEvent]:
        """The job's steps so far, the latest hundred of them. Raises `JobNotFound`."""
        return self.run(self.ledger.history(self.record(job).id))

    def status(self, job: Handle | str) -> JobStatus:
        """State, attempt, queue position and estimated wait. Raises `JobNotFound`."""
        return self.run(self.ledger.status(id_of(job)))

    def cancel(self, job: Handle | str) -> JobState:
        """Cancel a job that has not ended; returns the state it is in now."""
        return self.run(self.ledger.cancel(id_of(job)))

    def as_completed(
        self, jobs: Iterable[Handle | str], timeout_s: float | None = None
    ) -> Iterator[JobHandle]:
        """The jobs, each as soon as it has ended, however it ended.

        Raises `JobNotFound`, and `ResultTimeout` when one has not ended in time.
        """
        return self._as_they_end(self._new_wait(ids_of(jobs), timeout_s))

    def _as_they_end(self, wait: Wait) -> Iterator[JobHandle]:
        while wait:
            for job_id in self._more_ended(wait):
                yield JobHandle(self, job_id)

    def _more_ended(self, wait: Wait, *, block: bool = True) -> list[str]:
        """Jobs that have ended since the last call; may be none, after a while or at once."""
        if look := wait.to_look_at():
            return wait.end(self.run(self.ledger.ended(look)))
        return wait.feed(self.run(told(wait, block=block)))

    def _new_wait(self, job_ids: Iterable[str], timeout_s: float | None) -> Wait:
        """A `Wait` for jobs, from now on."""
        return Wait(
            self.settings.key_prefix, job_ids, check_seconds("timeout_s", timeout_s),
            block_s=self.settings.connect_timeout_s / 2, since=self.run(self.ledger.now()),
        )  # fmt: skip

    def queue(self, task: Task | str) -> QueueStatus:
        """The queue of a kind of job."""
        return self.run(self.ledger.queue(check_one_of("task", Task, task).queue))

    def queues(self) -> list[QueueStatus]:
        """The queues of all kinds of jobs."""
        return [self.queue(task) for task in Task]

    def workers(self) -> list[WorkerInfo]:
        """Workers that consume, each with the queues and the models that it serves."""
        return self.run(Workers(self.settings).recent())

    def jobs(
        self, owner: str = "", *, state: JobState | str | None = None,
        task: Task | str | None = None, cursor: str | None = None, limit: int = 50,
    ) -> Page:  # fmt: skip
        """An owner's jobs, the latest first; those without an owner belong to nobody.

        The next page begins at this one's `next_cursor`. Raises `InvalidParams`.
        """
        return self.run(self._listing.page(
            check_text("owner", owner),
            state=None if state is None else check_one_of("state", JobState, state),
            task=None if task is None else check_one_of("task", Task, task),
            cursor=None if cursor is None else check_text("cursor", cursor),
            limit=check_count("limit", limit),
        ))  # fmt: skip

    @property
    def _listing(self) -> Listing:
        return Listing(self.settings, self.ledger)

    @property
    def webhooks(self) -> Webhooks:
        """What webhooks are told, and were."""
        return Webhooks(Deliveries(self.settings), self.runner)

    @property
    def keys(self) -> Keys:
        """Who may use the HTTP gateway."""
        return Keys(ApiKeys(self.settings), self.runner)

    @property
    def dead_letters(self) -> Letters:
        """What was given up, for operators."""
        return Letters(DeadLetters(self.settings, self.ledger), self.runner)

    # -- reading ------------------------------------------------------------------------

    def read(self, blob: BlobRef) -> bytes:
        """The bytes of a blob. Raises `BlobNotFound` or `StorageUnavailable`."""
        return self.storage.get(_blob(blob))

    def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> str | None:
        """A URL under which anybody can read the blob for a while; None for a local folder."""
        if check_seconds("expires_in_s", expires_in_s) is None:
            raise InvalidParams("expires_in_s is None: give a number of seconds")
        return self.storage.sign(_blob(blob).key, expires_in_s)

    @property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        if self._opened is None:
            self._opened = open_storage(self.settings)
        return self._opened


def _batch_name(batch_id: str | None) -> str:
    return new_job_id() if batch_id is None else check_batch_id(check_text("batch_id", batch_id))


def _blob(blob: object) -> BlobRef:
    if not isinstance(blob, BlobRef):
        raise InvalidParams(
            f"the blob is {shown(blob)}: give a BlobRef, as one of a result's `images`"
        )
    return blob
