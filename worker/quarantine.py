"""What becomes of a message that no task can be made of: kept for people, its job ended."""

import logging

from crossmodal.errors import BrokerUnavailable, CrossmodalError
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.message import job_of
from crossmodal.jobs.record import Failure
from crossmodal.settings import Settings

log = logging.getLogger(__name__)


class Quarantine:
    """Sets messages aside as dead letters; one a process."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = JobLedger(settings)
        self._dead = DeadLetters(settings, self._ledger)

    def set_aside(self, queue: str, raw: bytes, error: CrossmodalError) -> None:
        """Never raises: a worker must outlive what it is sent, also while Redis fails."""
        try:
            letter = self._dead.set_aside(queue, raw, error)
            log.error("set a message from %s aside as %s: %s", queue, letter, error)
            self._end_job(raw, error)
        except BrokerUnavailable as e:
            log.error("a message from %s (%s) is lost: %s: %r", queue, error, e, raw[:200])

    def _end_job(self, raw: bytes, error: CrossmodalError) -> None:
        """Fail the job that the message speaks of, if there is one and nobody runs it."""
        job_id = job_of(raw)
        if job_id is None:
            return
        attempt = self._ledger.start(job_id, "quarantine")
        if isinstance(attempt, Attempt):
            self._ledger.fail(attempt, Failure.of(error))
