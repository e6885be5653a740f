"""Redelivers at once what the process before this one had in hand when it died.

A dead machine is known by its leases, which end after a while. A dead process is known to the next
one that its supervisor starts: a file beside the heartbeat holds the delivery tag prefixes of
earlier processes.
"""

import logging
from contextlib import suppress
from pathlib import Path

from crossmodal.errors import BrokerUnavailable, OutputNotWritable
from crossmodal.files import write_whole
from crossmodal.jobs.calls import Steps, call, redis, undecoded
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import job_of
from crossmodal.jobs.names import celery_prefix
from crossmodal.jobs.runners import Runner
from crossmodal.settings import Settings
from worker.celery.take import PROCESS
from worker.celery.unacked import ENDED
from worker.recovery import CHUNK, UNACKED

log = logging.getLogger(__name__)


def give_back(settings: Settings, worker: str, runner: Runner, index: str) -> None:
    """End the leases of earlier processes of this worker; any worker's sweep does the rest.

    `index` is kombu's sorted set of messages in hand.
    """
    if settings.heartbeat_file is None:
        return
    file = settings.heartbeat_file.with_suffix(".tags")
    try:
        earlier = _read(file) - {PROCESS}
        write_whole(file, "\n".join({*earlier, PROCESS}))
        for process in earlier:
            if count := runner.run(_end_leases(settings, worker, process, index)):
                log.warning("redelivering %d messages of a dead process", count)
        write_whole(file, PROCESS)
    except (BrokerUnavailable, OutputNotWritable) as e:
        log.warning("messages of a dead process are redelivered only when their leases end: %s", e)


def _read(file: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return set(file.read_text().split())
    return set()


@call
def _end_leases(settings: Settings, worker: str, process: str, index: str) -> Steps[int]:
    ledger, prefix = JobLedger(settings), celery_prefix(settings.key_prefix)
    cursor: int | None = None
    count = 0
    while cursor != 0:
        cursor, found = yield undecoded(
            redis.hscan(prefix + UNACKED, cursor or 0, match=f"{process}.*", count=CHUNK)
        )
        if found:
            jobs = {job_id for raw in found.values() if (job_id := job_of(raw)) is not None}
            yield from ledger.abandon(worker, jobs)
            yield redis.zadd(prefix + index, dict.fromkeys(found, ENDED), xx=True)
            count += len(found)
    return count
