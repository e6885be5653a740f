"""Checks of the promises after a storm, made from outside: on Redis and the store themselves."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.connection import connect
from crossmodal.jobs.names import CAPTIONS, dead_key, job_key, leases_key, queue_key, result_key
from crossmodal.jobs.record import Job, JobResult, JobState
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import tasks
from crossmodal.settings import Settings
from crossmodal.storage import open_storage
from tests.ledgers import Ledger

PREFIX = "crossmodal"
# Failures of a job whose worker or host was killed in each attempt, by the storm or the job.
STRUCK_DOWN = {"worker_lost", "model_host_crashed"}


def queues_of(models: Sequence[str] = ()) -> list[str]:
    """Return all queues that jobs may wait in; the default model's own should stay empty."""
    return [str(Queue(task, model)) for task in tasks() for model in (None, *models)]


@dataclass
class Accepted:
    """What the producers know: every id that `submit` returned, and its kind."""

    jobs: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    canceled: set[str] = field(default_factory=set)  # `cancel` confirmed it
    plain: set[str] = field(default_factory=set)  # ids of messages that plain Celery has sent
    models: dict[str, str | None] = field(default_factory=dict)
    """The model that each job names, or None."""
    cut_handovers: int = 0  # faults that may each lose plain messages which have no record yet
    refusals: list[str] = field(default_factory=list)  # of submits that should have been accepted
    garbage: int = 0
    late_refusals: int = 0  # a submit that failed, and took longer than its timeouts to do so
    wrong_ids: int = 0  # a repeated idempotency key that led to another job
    struck: Counter[str] = field(default_factory=Counter)
    """How often a process was killed that may have been running the job."""
    counts: Counter[str] = field(default_factory=Counter)  # for the report
    lock: threading.Lock = field(default_factory=threading.Lock)


class Audit:
    """A reading of all records; `breaches` yields the promises that were broken."""

    def __init__(self, settings: Settings, accepted: Accepted, models: Sequence[str] = ()) -> None:
        self._models = models
        self._queues = queues_of(models)
        self._settings = settings
        self._accepted = accepted
        self._redis: Any = connect(settings)
        self._ledger = Ledger(settings)
        self._storage = open_storage(settings)
        self.records = {job.id: job for job in self._records()}

    @property
    def states(self) -> Counter[JobState]:
        return Counter(job.state for job in self.records.values())

    @property
    def set_aside(self) -> int:
        """Messages on the list of dead letters."""
        letters = self._redis.zrange(dead_key(PREFIX), 0, -1)
        return len(set(letters) - self.records.keys())

    @property
    def struck_down(self) -> set[str]:
        """Jobs that have failed as they should: the storm killed all their attempts."""
        return {
            job.id
            for job in self.records.values()
            if job.failure is not None
            and job.state is JobState.FAILED
            and job.failure.code in STRUCK_DOWN
            and self._accepted.struck[job.id] >= self._settings.max_attempts
        }

    def unsettled(self) -> Iterator[str]:
        """Yield what is still on its way; must become nothing soon after the storm."""
        for job in self.records.values():
            if not job.state.is_terminal:
                yield f"{job.id} is {job.state} (attempt {job.attempt})"
        plain = [self._settings.plain_queue]
        for key in ("unacked", "unacked_index", *plain, *self._queues):
            if size := self._size(key):
                yield f"{key} holds {size}"

    def breaches(self) -> Iterator[str]:
        yield from self.unsettled()
        yield from (f"lost: {i}" for i in self._accepted.jobs - self.records.keys())
        for job in self.records.values():
            yield from self._of_job(job)
        yield from self._of_plain()
        yield from self._of_counters()
        yield from (f"refused: {refusal}" for refusal in self._accepted.refusals)
        yield from self._of_dead_letters()
        if self._accepted.late_refusals:
            yield f"{self._accepted.late_refusals} submits hung before they failed"
        if self._accepted.wrong_ids:
            yield f"{self._accepted.wrong_ids} repeated idempotency keys made another job"

    @property
    def lost_plain(self) -> set[str]:
        """Messages that were lost before a worker had made a record of their jobs."""
        return self._accepted.plain - self.records.keys()

    def _of_plain(self) -> Iterator[str]:
        if len(self.lost_plain) > self._accepted.cut_handovers:
            yield f"{len(self.lost_plain)} plain messages were lost: {sorted(self.lost_plain)}"

    def _records(self) -> Iterator[Job]:
        for key in self._redis.scan_iter(f"{PREFIX}:job:*", count=1_000, _type="HASH"):
            yield self._ledger.get(key.split(":")[2])

    def _size(self, key: str) -> int:
        kinds = {"list": self._redis.llen, "hash": self._redis.hlen, "zset": self._redis.zcard}
        kind = self._redis.type(key)
        return int(kinds[kind](key)) if kind in kinds else 0

    def _of_job(self, job: Job) -> Iterator[str]:
        events = self._ledger.history(job.id)
        ends = [event for event in events if event.state.is_terminal]
        if [event.state for event in ends] != [job.state]:
            yield f"{job.id} is {job.state}, its events say {[str(e.state) for e in ends]}"
        if job.id in self._accepted.canceled and job.state is not JobState.CANCELED:
            yield f"{job.id} was said to be canceled and is {job.state}"
        if (job.result is not None) != (job.state is JobState.SUCCEEDED):
            yield f"{job.id} is {job.state} and has {(job.result and 'a') or 'no'} result"
        if job.result is not None:
            yield from self._of_result(job, job.result)
            yield from self._of_model(job, job.result)

    def _of_model(self, job: Job, result: JobResult) -> Iterator[str]:
        if not self._models:
            return
        named = self._accepted.models.get(job.id, job.params.get("model"))
        if named != job.params.get("model"):
            yield f"{job.id} was to name {named}, its record says {job.params.get('model')}"
        if result.model != (named or self._models[0]):
            yield f"{job.id} names {named} and was run by {result.model}"

    def _of_result(self, job: Job, result: JobResult) -> Iterator[str]:
        if result.attempt != job.attempt:
            yield f"{job.id}: the result of attempt {result.attempt} stands for {job.attempt}"
        if not (result.images or result.captions or result.parts):
            yield f"{job.id} has succeeded with nothing"
        try:
            for image in result.images:
                data = self._storage.get(BlobRef(key=image.key))
                if hashlib.sha256(data).hexdigest() != image.sha256:
                    yield f"{job.id}: {image.key} has other bytes than its record says"
            if result.captions:
                yield from self._of_captions(job, result)
        except CrossmodalError as e:
            yield f"{job.id}: {e}"

    def _of_captions(self, job: Job, result: JobResult) -> Iterator[str]:
        stored = self._storage.get(BlobRef(key=result_key(job.id, CAPTIONS, result.attempt)))
        if json.loads(stored) != [caption.model_dump() for caption in result.captions]:
            yield f"{job.id}: the captions in the store are not what the record says"

    def _of_counters(self) -> Iterator[str]:
        for name in self._queues:
            queue = self._ledger.queue(name)
            ended = Counter(j.state for j in self.records.values() if j.queue == name)
            if queue.finished != {state: n for state, n in ended.items() if state.is_terminal}:
                yield f"the counters of {name} are {queue.finished}, the records say {dict(ended)}"
            for part in ("queued", "running"):
                if size := self._redis.zcard(queue_key(PREFIX, name, part)):
                    yield f"{size} jobs are stuck as {part} in {name}"
        if size := self._redis.zcard(leases_key(PREFIX)):
            yield f"{size} leases are left"

    def _of_dead_letters(self) -> Iterator[str]:
        dead = set(self._redis.zrange(dead_key(PREFIX), 0, -1))
        jobs = dead & self.records.keys()
        poison = {
            i
            for i in self._accepted.poison
            if i in self.records and self.records[i].state is not JobState.CANCELED
        }
        for job_id in jobs - poison - self.struck_down:
            yield f"{job_id} was no poison and is a dead letter: {self.records[job_id].failure}"
        yield from (f"{job_id} was poison and is no dead letter" for job_id in poison - jobs)
        failed = {i for i, job in self.records.items() if job.state is JobState.FAILED}
        innocent = failed - poison - self.struck_down
        yield from (f"{i} has failed: {self.records[i].failure}" for i in innocent)
        yield from self._of_outages(failed - innocent)

    def _of_outages(self, guilty: set[str]) -> Iterator[str]:
        """Yield jobs that were to fail, and failed for another reason, as an outage."""
        for job in (self.records[i] for i in guilty):
            if job.failure is not None and job.failure.code not in STRUCK_DOWN:
                yield f"{job.id} was to fail, and failed for something else: {job.failure}"


def running_jobs(settings: Settings, models: Sequence[str] = ()) -> dict[str, str]:
    """Return the ids of the running jobs, with the names of their workers."""
    with connect(settings) as redis:
        ids = [
            job_id
            for queue in queues_of(models)
            for job_id in redis.zrange(queue_key(PREFIX, queue, "running"), 0, -1)
        ]
        return {i: str(redis.hget(job_key(PREFIX, i), "worker")) for i in ids}
