"""Dead letters of messages that no task can be made of; their jobs end."""

import logging
from collections.abc import Collection

from pydantic import ValidationError

from crossmodal.errors import BrokerUnavailable, CrossmodalError, JobNotFound
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.message import job_of
from crossmodal.jobs.record import Failure
from crossmodal.jobs.runners import Runner
from crossmodal.settings import Settings
from worker.recovery import Recovery

log = logging.getLogger(__name__)


class Quarantine:
    """The writer of such dead letters, one per process."""

    def __init__(self, settings: Settings, runner: Runner, queues: Collection[str]) -> None:
        self._runner = runner
        self._ledger = JobLedger(settings)
        self._dead = DeadLetters(settings, self._ledger)
        self._recovery = Recovery(settings, queues, runner)

    def set_aside(self, queue: str, raw: bytes, error: CrossmodalError) -> None:
        """Keep a message as a dead letter and end its job.

        Never raises: a worker must outlive what it is sent, also while Redis fails.
        """
        try:
            ended = self._ended_job(raw, error)
            letter = self._runner.run(self._dead.set_aside(queue, raw, error, ended))
            log.error("set a message from %s aside as dead letter %s: %s", queue, letter, error)
        except BrokerUnavailable as e:
            log.error(
                "a message of %d bytes from %s (%s) is lost: %s", len(raw), queue, error.code, e
            )

    def _ended_job(self, raw: bytes, error: CrossmodalError) -> str | None:
        """Fail the waiting job that a message names, if it has no other message; return its id."""
        job_id = job_of(raw)
        if job_id is None or not self._waits(job_id) or self._recovery.is_spoken_of(job_id):
            return None
        refused = self._runner.run(self._ledger.refuse(job_id, Failure.of(error)))
        return job_id if refused else None

    def _waits(self, job_id: str) -> bool:
        """Return whether such a job exists and has not ended; most garbage names none."""
        try:
            return not self._runner.run(self._ledger.get(job_id)).state.is_terminal
        except (JobNotFound, ValidationError):
            return False
