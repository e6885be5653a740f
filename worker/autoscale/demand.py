"""The load of the queues, read from the ledger as `crossmodal queue --json` does."""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.models import KnownModels, Models
from crossmodal.jobs.names import job_key, messages_key, queue_key
from crossmodal.jobs.record import QueueStatus
from crossmodal.jobs.records import JobRecords
from crossmodal.jobs.runners import Runner
from crossmodal.kinds.queue import Queue
from crossmodal.settings import Settings
from worker.autoscale.policy import Load, Look
from worker.crews import Crew
from worker.recovery import PRIORITIES

SAMPLE = 64  # waiting bulk messages whose items are counted


class Demand:
    """The demand in the queues that crews serve. Every method may raise `BrokerUnavailable`."""

    def __init__(
        self,
        settings: Settings,
        crews: Sequence[Crew],
        target_wait_s: float,
        bulk_target_wait_s: float,
    ) -> None:
        self._settings = settings
        self._crews = crews
        self._target_s = {False: target_wait_s, True: bulk_target_wait_s}
        self._runner = Runner(settings, what="autoscale")
        self._run = self._runner.run
        self._records = JobRecords(settings)
        self._models = Models(settings)

    def close(self) -> None:
        self._runner.close()

    def look(self) -> Look:
        """Return the current load of all queues."""
        loads = [load for crew in self._crews for load in self._loads(crew)]
        return Look(time.monotonic(), tuple(loads))

    def busy(self) -> Counter[int]:
        """Count the running jobs of each worker on this machine, by its supervisor's process id."""
        here = f"@{socket.gethostname()}"
        running = (self._key(queue, "running") for crew in self._crews for queue in crew.queues)
        names = [name for key in running for name in self._run(self._fields_of(key, -1, "worker"))]
        pids = [name.removesuffix(here).rpartition(".")[2] for name in names if name.endswith(here)]
        # The name of a Celery worker started by hand holds no supervisor's process id.
        return Counter(int(pid) for pid in pids if pid.isdecimal())

    def _loads(self, crew: Crew) -> list[Load]:
        recorded = [queue for queue in crew.queues if queue != self._settings.plain_queue]
        statuses = self._run(self._records.queues(recorded))
        known = self._run(self._models.known())
        loads = [self._load(crew, status, _slots(crew, status.queue, known)) for status in statuses]
        # Jobs of plain Celery have no record yet: only their messages can be counted.
        longest_s = max((load.run_s for load in loads if load.run_s), default=None)
        plain = [queue for queue in crew.queues if queue not in recorded]
        for queue in plain:
            waiting = self._messages(queue)
            target_s = self._target_s[crew.is_bulk]
            loads.append(Load(queue, waiting, 0, longest_s, crew.concurrency, target_s))
        return loads

    def _load(self, crew: Crew, status: QueueStatus, slots: int) -> Load:
        # Messages beyond the jobs in the ledger are of plain Celery, or of jobs that have been
        # canceled: a worker must take them, but many may need no work.
        unrecorded = min(self._messages(status.queue), crew.concurrency)
        return Load(
            status.queue,
            waiting=0 if status.paused else max(status.depth, unrecorded),
            running=status.running,
            run_s=self._message_s(status) if crew.is_bulk else status.mean_run_s,
            slots=slots,
            target_wait_s=self._target_s[crew.is_bulk],
            submitted=status.submitted,
        )

    def _message_s(self, status: QueueStatus) -> float | None:
        """Estimate the run time of a waiting bulk message from its items, whose number varies."""
        queued = self._key(status.queue, "queued")
        items = self._run(self._fields_of(queued, SAMPLE - 1, "items"))
        if status.mean_item_s is None or not items:
            return status.mean_run_s
        return status.mean_item_s * fmean(int(count) for count in items)

    def _messages(self, queue: str) -> int:
        prefix = self._settings.key_prefix
        lists = [messages_key(prefix, queue, priority) for priority in PRIORITIES]
        return self._run(_length(lists))

    def _key(self, queue: str, part: str) -> str:
        return queue_key(self._settings.key_prefix, queue, part)

    @call
    def _fields_of(self, key: str, last: int, field: str) -> Steps[list[str]]:
        """Return a field of the records of a list's first jobs, where it is set."""
        job_ids = yield redis.zrange(key, 0, last)
        keys = [job_key(self._settings.key_prefix, job_id) for job_id in job_ids]
        values = yield [redis.hget(job, field) for job in keys]
        return [value for value in values if value is not None]


def _slots(crew: Crew, queue: str, known: KnownModels) -> int:
    """Return how many messages of a queue a worker runs at once: at most two full batches."""
    most = known.max_batch(Queue.parse(queue))
    return crew.concurrency if most is None else min(crew.concurrency, 2 * most)


@call
def _length(lists: list[str]) -> Steps[int]:
    return sum((yield [redis.llen(key) for key in lists]))
