"""Sends a new message for each job whose message was lost.

Redis hands over a message before the worker has noted that it has it. If the worker or its
connection dies in between, the message is lost; the job's record remains. Such a job is soon
among the oldest of its queue, so a pass checks only the head of each queue, without the jobs
whose messages are held for their owner's turn.
"""

import logging
from collections.abc import Collection, Iterator
from itertools import islice
from threading import Event, Thread
from typing import Any

from pydantic import ValidationError

from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.jobs.calls import redis, undecoded
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import broker_priority, job_of, message_for
from crossmodal.jobs.names import celery_prefix, job_key, messages_key, queue_key
from crossmodal.jobs.record import Job
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.queue import Queue
from crossmodal.settings import Settings
from worker.notices import Lasting

log = logging.getLogger(__name__)

HEAD = 500  # jobs of each queue that a pass checks
MOST_PASSED = 20_000  # jobs that a pass skips for that; the next pass goes on there
CHUNK = 1_000  # messages or job ids that are read at once
OLDEST = float("-inf")
SOON = 10_000  # max messages read to find that of one job
UNACKED = "unacked"  # kombu's hash of messages that workers hold
PRIORITIES = (-1, 0, 3, 6, 9)  # kombu has a list for each


class Recovery(Thread):
    """A thread that finds jobs without a message among the oldest of each queue of this worker.

    It is a thread because reading a long queue may take longer than a lease.
    """

    def __init__(self, settings: Settings, queues: Collection[str], runner: Runner) -> None:
        super().__init__(name="recovery", daemon=True)
        self._settings = settings
        self._queues = [queue for queue in queues if queue != settings.plain_queue]
        self._lists = [
            messages_key(settings.key_prefix, queue, priority)
            for queue in queues
            for priority in PRIORITIES
        ]
        self._unacked = celery_prefix(settings.key_prefix) + UNACKED
        self._run = runner.run
        self._ledger = JobLedger(settings)
        self._redis: Any = runner.redis
        self._workers = Workers(settings)
        self._from: dict[str, float] = {}  # score at which a queue's next pass begins

    def run(self) -> None:
        never = Event()
        outage = Lasting(
            log,
            "the recovery of lost messages is skipped for now: %s",
            "lost messages are recovered again",
        )
        while not never.wait(self._settings.lease_s):
            try:
                self.recover()
                outage.note_success()
            except BrokerUnavailable as e:
                outage.warn(e)
            except Exception:  # the next pass may succeed
                log.exception("internal error in the recovery of lost messages")

    def recover(self) -> None:
        """Run one pass; many workers may do so at the same time."""
        for queue in self._queues:
            self._recover(queue)
        self._run(self._workers.forget_silent())

    def is_spoken_of(self, job_id: str) -> bool:
        """Return whether one of the first `SOON` messages is the job's."""
        return bool(self._spoken_of({job_id}, most=SOON))

    def _recover(self, queue: str) -> None:
        self._run(self._ledger.promote(queue))
        own, silent = Queue.parse(queue), {job.id: job for job in self._silent(queue)}
        if not silent:
            return
        for job_id in self._spoken_of(set(silent)):
            del silent[job_id]
        for job in silent.values():
            message = message_for(own, job.id, job.params, broker_priority(job.priority, job.owner))
            if self._run(self._ledger.requeue(job, message)):
                log.warning("the message of job %s was lost: sent it again", job.id)

    def _silent(self, queue: str) -> Iterator[Job]:
        """Yield jobs that have waited for a while, or whose attempt has no lease."""
        with broker_errors(self._settings):
            now = self._redis.time()[0]
            before, after = now - 2 * self._settings.lease_s, now + 2 * self._settings.lease_s
            found = self._head(queue, before)
            running = queue_key(self._settings.key_prefix, queue, "running")
            found += self._redis.zrangebyscore(running, "-inf", before, start=0, num=HEAD)
            found += self._future(queue, after)
        for job_id in found:
            try:
                job = self._run(self._ledger.get(job_id))
            except JobNotFound:  # the record was deleted
                self._run(self._ledger.forget(job_id, queue))
                continue
            except ValidationError as e:
                wrong = e.error_count()
                log.error(
                    "the record of job %s cannot be read: %d fields are invalid", job_id, wrong
                )
                continue
            if self._is_silent(job, before, after):
                yield job

    def _head(self, queue: str, before: float) -> list[str]:
        """Return the oldest queued jobs, except those with held messages, which cannot be lost.

        Where very many are held, it takes several passes to skip them.
        """
        queued = queue_key(self._settings.key_prefix, queue, "queued")
        first = self._from.pop(queue, OLDEST)
        found: list[str] = []
        for passed in range(0, MOST_PASSED, CHUNK):
            entries = self._redis.zrangebyscore(
                queued, first, before, start=passed, num=CHUNK, withscores=True
            )
            found += self._not_held([job_id for job_id, _ in entries])
            if len(found) >= HEAD or len(entries) < CHUNK:
                return found[:HEAD]
        self._from[queue] = entries[-1][1]
        return found

    def _not_held(self, job_ids: list[str]) -> list[str]:
        """Return the jobs that must have a message in the queue, and those that have expired."""
        now = self._run(self._ledger.now())
        pipe = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hmget(job_key(self._settings.key_prefix, job_id), "held", "expires_at")
        return [
            job_id
            for job_id, (held, expires_at) in zip(job_ids, pipe.execute(), strict=True)
            if held is None or (expires_at is not None and float(expires_at) <= now)
        ]

    def _future(self, queue: str, after: float) -> list[str]:
        """Return jobs of before Redis's clock was put back, which look young for as long."""
        queued, running = (
            queue_key(self._settings.key_prefix, queue, part) for part in ("queued", "running")
        )
        waiting, started = (
            self._redis.zrangebyscore(key, after, "+inf", start=0, num=HEAD)
            for key in (queued, running)
        )
        return [*self._not_held(waiting), *started]

    def _is_silent(self, job: Job, before: float, after: float) -> bool:
        last = max(job.created_at, job.started_at or 0.0, job.sent_at or 0.0)
        if job.state.is_terminal or job.held or before <= last <= after:
            return False
        return not self._run(self._ledger.is_leased(job.id))

    def _spoken_of(self, wanted: set[str], most: int | None = None) -> set[str]:
        """Return which of the jobs have a message; stops reading once all are found."""
        found: set[str] = set()
        for raw in islice(self._messages(), most):
            if (job_id := job_of(raw)) in wanted:
                found.add(job_id)
                if len(found) == len(wanted):
                    break
        return found

    def _messages(self) -> Iterator[bytes]:
        """Yield the ends of the lists, then the messages that workers hold, then whole lists.

        This order finds a message that a worker takes meanwhile. It may miss one that is returned
        meanwhile: its job then gets a second message, which does no harm.
        """
        with broker_errors(self._settings):
            for name in self._lists:
                yield from self._raw(name, -CHUNK, -1)
            yield from self._in_hand()
            for name in self._lists:
                for start in range(0, self._redis.llen(name), CHUNK):
                    yield from self._raw(name, start, start + CHUNK - 1)

    def _raw(self, name: str, start: int, end: int) -> list[bytes]:
        """Return a part of a list, as bytes: a message need not be text."""
        command = undecoded(redis.lrange(name, start, end))
        return list(self._redis.execute_command(*command.args, **command.options))

    def _in_hand(self) -> Iterator[bytes]:
        cursor: int | None = None
        while cursor != 0:
            command = undecoded(redis.hscan(self._unacked, cursor or 0, count=CHUNK))
            cursor, found = self._redis.execute_command(*command.args, **command.options)
            yield from found.values()
