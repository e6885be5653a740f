"""The status and cancellation of batches; reading a status takes constant time."""

from crossmodal.errors import JobNotFound, quoted
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import batch_key, check_batch_id
from crossmodal.jobs.record import BatchStatus, JobState
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MIXED = "mixed"  # the `task` of a batch with messages of several tasks; submit.lua writes it


class Batches:
    """The batches in the ledger; every method returns a call."""

    def __init__(self, settings: Settings, ledger: JobLedger) -> None:
        self._prefix = settings.key_prefix
        self._ledger = ledger

    @call
    def status(self, batch_id: str) -> Steps[BatchStatus]:
        """Return the progress of the part submitted so far. Raises `JobNotFound`."""
        fields = yield from self._fields(batch_id)
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

    @call
    def cancel(self, batch_id: str) -> Steps[BatchStatus]:
        """Cancel every message of the batch that has not ended, and accept no more.

        Raises `JobNotFound`.
        """
        yield from self._ledger.cancel_batch(check_batch_id(batch_id))
        return (yield from self.status(batch_id))

    @call
    def is_canceled(self, batch_id: str) -> Steps[bool]:
        """Return whether the batch was canceled."""
        return bool((yield redis.hget(batch_key(self._prefix, batch_id), "is_canceled")))

    @call
    def _fields(self, batch_id: str) -> Steps[dict[str, str]]:
        key = batch_key(self._prefix, check_batch_id(batch_id))
        fields: dict[str, str] = yield redis.hgetall(key)
        if "messages" not in fields:  # it may have been canceled before its first message
            raise JobNotFound(
                f"there is no batch {quoted(batch_id)}: it was never submitted to this Redis, or "
                "has outlived CROSSMODAL_RETENTION_S"
            )
        return fields
