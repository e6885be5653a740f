"""What the queues ask of workers, read from the ledger as `crossmodal queue --json` does."""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.names import Task, job_key, messages_key, queue_key
from crossmodal.jobs.record import QueueStatus
from crossmodal.jobs.records import JobRecords
from crossmodal.jobs.runners import Runner
from crossmodal.settings import Settings
from worker.autoscale.policy import Load, Look
from worker.recovery import PRIORITIES
from worker.unit import Crew

SAMPLE = 64  # waiting bulk messages whose items are counted


class Demand:
    """Looks at the queues that crews serve. Every method may raise `BrokerUnavailable`."""

    def __init__(
        self, settings: Settings, crews: Sequence[Crew],
        target_wait_s: float, bulk_target_wait_s: float,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._crews = crews
        self._target_s = {False: target_wait_s, True: bulk_target_wait_s}
        self._runner = Runner(settings)
        self._redis: Any = self._runner.redis
        self._records = JobRecords(settings)

    def close(self) -> None:
        self._runner.close()

    def look(self) -> Look:
        """All queues, as they are now."""
        loads = [load for crew in self._crews for load in self._loads(crew)]
        return Look(time.monotonic(), tuple(loads))

    def busy(self) -> Counter[int]:
        """How many jobs run at each worker of this machine, by the supervisor's process id."""
        here = f"@{socket.gethostname()}"
        with broker_errors(self._settings):
            names = [name for crew in self._crews for name in self._runners(crew)]
        pids = [name.removesuffix(here).rpartition(".")[2] for name in names if name.endswith(here)]
        # A Celery worker that somebody started by hand has another name, and is no supervisor's.
        return Counter(int(pid) for pid in pids if pid.isdecimal())

    def _loads(self, crew: Crew) -> list[Load]:
        recorded = [queue for queue in crew.queues if queue in set(Task)]
        queues = [self._runner.run(self._records.queue(queue)) for queue in recorded]
        loads = [self._load(crew, status) for status in queues]
        # Jobs of plain Celery have no record yet: only their messages can be counted.
        longest_s = max((load.run_s for load in loads if load.run_s), default=None)
        plain = [queue for queue in crew.queues if queue not in recorded]
        for queue in plain:
            waiting = self._messages(queue)
            target_s = self._target_s[crew.is_bulk]
            loads.append(Load(queue, waiting, 0, longest_s, crew.concurrency, target_s))
        return loads

    def _load(self, crew: Crew, status: QueueStatus) -> Load:
        # Messages beyond the jobs in the ledger are of plain Celery, or of jobs that have been
        # canceled: somebody must take them, but many of them may be nothing to do.
        unrecorded = min(self._messages(status.queue), crew.concurrency)
        return Load(
            status.queue,
            waiting=max(status.depth, unrecorded),
            running=status.running,
            run_s=self._message_s(status) if crew.is_bulk else status.mean_run_s,
            slots=crew.concurrency,
            target_wait_s=self._target_s[crew.is_bulk],
            submitted=status.submitted,
        )

    def _message_s(self, status: QueueStatus) -> float | None:
        """What a bulk message takes that waits, by its items: messages are of many sizes."""
        queued = queue_key(self._settings.key_prefix, status.queue, "queued")
        with broker_errors(self._settings):
            items = self._fields(self._redis.zrange(queued, 0, SAMPLE - 1), "items")
        if status.mean_item_s is None or not items:
            return status.mean_run_s
        return status.mean_item_s * fmean(int(count) for count in items)

    def _messages(self, queue: str) -> int:
        with broker_errors(self._settings):
            pipe = self._redis.pipeline(transaction=False)
            for priority in PRIORITIES:
                pipe.llen(messages_key(self._settings.key_prefix, queue) + priority)
            return sum(pipe.execute())

    def _runners(self, crew: Crew) -> list[str]:
        """The Celery workers that run jobs, one name a job."""
        return [
            name
            for queue in crew.queues
            for name in self._fields(
                self._redis.zrange(queue_key(self._settings.key_prefix, queue, "running"), 0, -1),
                "worker",
            )
        ]

    def _fields(self, job_ids: Sequence[str], field: str) -> list[str]:
        """One field of the records of these jobs, where they have it."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hget(job_key(self._settings.key_prefix, job_id), field)
        return [value for value in pipe.execute() if value is not None]
