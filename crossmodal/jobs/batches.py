"""What the ledger knows of whole batches; every lookup costs the same, however large they are."""

from typing import Any

from redis import Redis

from crossmodal.errors import JobNotFound, quoted
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import Task, batch_key, bulk_job_id, check_batch_id
from crossmodal.jobs.record import BatchStatus, JobState
from crossmodal.settings import Settings

MIXED = "mixed"  # the `task` of a batch that has messages of several; submit.lua writes it


class Batches:
    """Looks batches up, and cancels them."""

    def __init__(self, settings: Settings, ledger: JobLedger, redis: Redis) -> None:
        self._settings = settings
        self._ledger = ledger
        self._redis: Any = redis

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is, as far as it was submitted. Raises `JobNotFound`."""
        fields = self._fields(batch_id)
        ended = {
            state: int(fields[state]) for state in JobState if state.is_terminal and state in fields
        }
        under_way = int(fields["messages"]) + int(fields.get("again", 0)) - sum(ended.values())
        return BatchStatus(
            id=batch_id,
            task=None if fields["task"] == MIXED else Task(fields["task"]),
            total=int(fields["items"]),
            completed=int(fields.get("items_completed", 0)),
            failed=int(fields.get("items_failed", 0)),
            messages=ended | ({JobState.QUEUED: under_way} if under_way else {}),
        )

    def most(self, batch_id: str, task: Task) -> int | None:
        """How many items its messages of a kind may have; None where none of these was sent."""
        key = batch_key(self._settings.key_prefix, check_batch_id(batch_id))
        with broker_errors(self._settings):
            most = self._redis.hget(key, f"most:{task.in_bulk}")
        return int(most) if most else None

    def cancel(self, batch_id: str) -> BatchStatus:
        """Cancel every message of the batch that has not ended, and take no more of it.

        Raises `JobNotFound`.
        """
        self._ledger.halt(check_batch_id(batch_id))
        for number in range(int(self._fields(batch_id)["messages"])):
            try:
                self._ledger.cancel(bulk_job_id(batch_id, number))
            except JobNotFound:  # it ended so long ago that its record is gone
                continue
        return self.status(batch_id)

    def _fields(self, batch_id: str) -> dict[str, str]:
        key = batch_key(self._settings.key_prefix, check_batch_id(batch_id))
        with broker_errors(self._settings):
            fields: dict[str, str] = self._redis.hgetall(key)
        if not fields:
            raise JobNotFound(
                f"there is no batch {quoted(batch_id)}: it was never submitted to this Redis, or "
                "has outlived CROSSMODAL_RETENTION_S"
            )
        return fields
