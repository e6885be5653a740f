"""Calls that read jobs, models, queues and workers, and wait for jobs to end."""

from collections.abc import Callable, Iterable
from functools import cached_property

from crossmodal.jobs.batches import Batches
from crossmodal.jobs.calls import Steps, call
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.listing import Listing, Page
from crossmodal.jobs.models import FRESH_S, KnownModels, Models
from crossmodal.jobs.record import (
    BatchStatus,
    Job,
    JobEvent,
    JobState,
    JobStatus,
    ModelInfo,
    QueueStatus,
    WorkerInfo,
)
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from crossmodal.storage import Storage, open_storage
from producer.checks import check_count, check_one_of, check_seconds, check_task, check_text
from producer.events import Event, Events
from producer.handle import Handle, id_of
from producer.waiting import Wait

STATUS_S = 1.0  # how old the knowledge of workers may be in a status


class Following:
    """Calls about submitted jobs, and about what serves them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = JobLedger(settings)
        self.batches = Batches(settings, self.ledger)
        self._models = Models(settings)

    @cached_property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        return open_storage(self.settings)

    @call
    def job(self, job: Handle | str) -> Steps[str]:
        """Return a handle for a job by its id. Raises `JobNotFound`."""
        return (yield from self.record(job)).id

    @call
    def record(self, job: Handle | str) -> Steps[Job]:
        """Return the ledger's record of a job. Raises `JobNotFound`."""
        return (yield from self.ledger.get(id_of(job)))

    @call
    def history(self, job: Handle | str) -> Steps[list[JobEvent]]:
        """Return the job's latest hundred events. Raises `JobNotFound`."""
        _, events = yield from self.ledger.follow(id_of(job))
        return events

    @call
    def status(self, job: Handle | str) -> Steps[JobStatus]:
        """Return state, attempt, queue position and estimated wait. Raises `JobNotFound`."""
        found = yield from self.ledger.status(id_of(job))
        if found.state is not JobState.QUEUED:
            return found
        known = yield from self.models(max_age_s=STATUS_S)
        queue = (yield from self.record(job)).queue
        return found.model_copy(update={"waits_for": known.waits_for(queue)})

    @call
    def cancel(self, job: Handle | str) -> Steps[JobState]:
        """Cancel a job that has not ended; returns its state now."""
        return (yield from self.ledger.cancel(id_of(job)))

    @call
    def ended(
        self,
        job: Handle | str,
        timeout_s: float | None = None,
        tell: Callable[[JobStatus], object] | None = None,
    ) -> Steps[Job]:
        """Return the record of a job once it has ended; `tell` gets its status meanwhile.

        Raises `JobNotFound` or `ResultTimeout`.
        """
        job_id = id_of(job)
        wait = yield from self.wait([job_id], timeout_s)
        while wait:
            if tell is not None and wait.is_time_to_tell():
                tell((yield from self.status(job_id)))
            yield from self.more_ended(wait)
        if tell is not None:
            tell((yield from self.status(job_id)))
        return (yield from self.ledger.get(job_id))

    @call
    def wait(self, job_ids: Iterable[str], timeout_s: float | None = None) -> Steps[Wait]:
        """Return a `Wait` for jobs, for `more_ended`."""
        timeout_s = check_seconds("timeout_s", timeout_s)
        return Wait(
            self.settings.key_prefix,
            job_ids,
            timeout_s,
            block_s=self.settings.connect_timeout_s / 2,
            since=(yield from self.ledger.now()),
        )

    @call
    def more_ended(self, wait: Wait, *, block: bool = True) -> Steps[list[str]]:
        """Return jobs that have ended since the last call; may be none, also at once."""
        if due := wait.to_check():
            return wait.end((yield from self.ledger.ended(due)))
        return wait.feed((yield wait.step(block=block)))

    @call
    def more_events(self, events: Events) -> Steps[list[Event]]:
        """Return the events since the last call; may be none, after a while."""
        steps: list[Event] = []
        has_changed = True
        if events.is_to_be_watched():
            yield from self.ledger.watch([events.job])
        if not events.read_until:
            events.read_until = str(int((yield from self.ledger.now()) * 1_000) - 1)
        else:
            steps, has_changed = events.feed((yield events.wait()))
        if not has_changed:
            return steps
        return steps + events.take(*(yield from self.ledger.follow(events.job)))

    def events_of(self, job: Handle | str) -> Events:
        """Return the `Events` of a job from its beginning, for `more_events`."""
        block_s = self.settings.connect_timeout_s / 2
        return Events(id_of(job), self.settings.key_prefix, block_s)

    @call
    def models(self, *, max_age_s: float = FRESH_S) -> Steps[KnownModels]:
        """Return all models by name, at most `max_age_s` old."""
        return (yield from self._models.known(max_age_s=max_age_s))

    @call
    def model(self, name: str) -> Steps[ModelInfo]:
        """Return a model by its name or alias, with its vocabulary.

        Raises `ModelNotFound`.
        """
        known = yield from self.models()
        return (yield from self._models.with_words(known.any_named(name)))

    @call
    def queue(self, task: Task | str, model: str | None = None) -> Steps[QueueStatus]:
        """Return the queue of a kind and a model, or of jobs that name no model."""
        task = check_task(task)
        known = yield from self.models()
        return (yield from self.ledger.queue(str(known.queue(task, {"model": model}))))

    @call
    def queues(self) -> Steps[list[QueueStatus]]:
        """Return the queues of all kinds and models."""
        known = yield from self.models()
        found = yield from self.ledger.queues([str(queue) for queue in known.queues])
        return [one for one in found if one.has_been_used or not known.is_unusual(one.queue)]

    @call
    def workers(self) -> Steps[list[WorkerInfo]]:
        """Return the live workers, each with its queues and models."""
        return (yield from Workers(self.settings).recent())

    @call
    def jobs(
        self,
        owner: str = "",
        *,
        state: JobState | str | None = None,
        task: Task | str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Steps[Page]:
        """Return a page of an owner's jobs, the latest first; owner "" has those without a key.

        The next page begins at this one's `next_cursor`. Raises `InvalidParams`.
        """
        return (
            yield from Listing(self.settings, self.ledger).page(
                check_text("owner", owner),
                state=None if state is None else check_one_of("state", JobState, state),
                task=None if task is None else check_task(task),
                cursor=None if cursor is None else check_text("cursor", cursor),
                limit=check_count("limit", limit),
            )
        )

    @call
    def batch(self, batch_id: str) -> Steps[BatchStatus]:
        """Return the progress of a batch, as far as it was submitted. Raises `JobNotFound`."""
        return (yield from self.batches.status(check_text("batch_id", batch_id)))

    @call
    def cancel_batch(self, batch_id: str) -> Steps[BatchStatus]:
        """Cancel the unfinished messages of a batch. Raises `JobNotFound`."""
        return (yield from self.batches.cancel(check_text("batch_id", batch_id)))
