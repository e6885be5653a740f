"""A job to create: what submit.lua is given, and what its refusals mean."""

import math
from dataclasses import dataclass
from typing import Any

from crossmodal.errors import (
    CrossmodalError,
    IdempotencyConflict,
    InvalidParams,
    JobCanceled,
    QueueFull,
    QueuePaused,
    TooManyQueued,
)
from crossmodal.jobs import names
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.record import likely_gap_s
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings

MAX_PARAMS = 65_536  # characters of JSON
PAUSED_S = 60.0  # retry delay for a paused queue that refuses jobs
NOBODY_WORKS_S = 60.0  # retry delay for a full queue without workers


@dataclass(frozen=True)
class Submission:
    """A job to create, and the message to send with it.

    The job enters the queue of `model`, or of the default model. An `idempotency_key` that was
    used for the same request, with the same `fingerprint`, leads to the earlier job. A bulk job
    joins its `batch`. `priority` (-1, 0 or 1) orders an owner's backlog, and jobs without an
    owner in the whole queue. The record is kept for `keep_s` after the job ends. Only where it is
    `bounded` do the queue's limit and pause hold.
    """

    job_id: str
    task: Task
    params_json: str
    fingerprint: str = ""
    model: str | None = None
    message: str = ""
    idempotency_key: str | None = None
    expires_in_s: float | None = None
    bounded: bool = True
    batch: BulkParams | None = None
    origin: Origin = NOBODY
    priority: int = 0
    keep_s: float | None = None

    @property
    def queue(self) -> str:
        return str(Queue(self.task, self.model))

    def check(self) -> None:
        """Raise `InvalidParams` for params that are too long, or an endless time."""
        if len(self.params_json) > MAX_PARAMS:
            raise InvalidParams(
                f"the params have {len(self.params_json)} characters of JSON, "
                f"{MAX_PARAMS} are allowed"
            )
        if self.expires_in_s is not None and not 0 <= self.expires_in_s < float("inf"):
            raise InvalidParams(
                f"expires_in_s is {self.expires_in_s}: give a finite number of seconds, 0 or more"
            )

    def guard(self, prefix: str) -> str:
        """Return the key that another submission of the same request has too."""
        if self.idempotency_key is None:
            return names.job_key(prefix, self.job_id)
        return names.idempotency_key(prefix, self.idempotency_key)

    def args(self, settings: Settings) -> tuple[Any, ...]:
        """Return the arguments of submit.lua that follow the job's id, in its order."""
        batch, origin = self.batch, self.origin
        return (
            self.task,
            self.queue,
            self.params_json,
            self.fingerprint,
            "" if self.expires_in_s is None else self.expires_in_s,
            settings.max_queue_length if self.bounded else "",
            self.message,
            *((batch.batch, batch.number, batch.items, batch.most) if batch else ("", 0, 0, 0)),
            origin.owner,
            origin.max_queued or "",
            settings.max_batch,
            origin.traceparent or "",
            origin.webhook.model_dump_json() if origin.webhook else "",
            self.priority,
            "" if self.keep_s is None else math.ceil(self.keep_s),
            int(self.bounded and not settings.paused_queues_accept),
        )

    def refusal(self, why: str, found: list[Any], limit: int) -> CrossmodalError | None:
        """Return the error of a reply of submit.lua; None if the job exists now."""
        match why:
            case "paused":
                return QueuePaused(
                    f"the queue {self.queue} is paused: submit again later", PAUSED_S
                )
            case "full":
                return _queue_full(self.queue, limit, *found)
            case "owner_full":
                return TooManyQueued(
                    f"{found[0]} jobs of this API key wait for {self.queue}, "
                    f"{self.origin.max_queued} are allowed: submit again when some have ended"
                )
            case "canceled":
                return JobCanceled(
                    f"the batch {found[0]!r} was canceled: send the rest as another batch"
                )
            case "conflict":
                return IdempotencyConflict(
                    f"the idempotency key {self._key_as_sent()!r} belongs to job {found[0]}, "
                    "which was submitted with other params: use another key"
                )
        return None

    def _key_as_sent(self) -> str:
        """Return the idempotency key as its sender wrote it, without the prefix of its owner."""
        key, owner = self.idempotency_key or "", self.origin.owner
        return key.removeprefix(f"{owner}:") if owner else key


def _queue_full(
    queue: str,
    limit: int,
    depth: int,
    messages: int,
    running: int,
    mean_run_s: str,
    mean_gap_s: str,
) -> QueueFull:
    """Return the error; its retry delay is the time to run a twentieth of the queue.

    Either the max of jobs wait, or too many messages of ended jobs are in the list.
    """
    found, held = depth, f"{depth} jobs, {limit} are allowed"
    if depth < limit:
        of_ended = "mostly of canceled or expired jobs"
        found, held = messages, f"{messages} messages, {of_ended}, where {limit} jobs are allowed"
    gap, run = (float(mean) if mean else None for mean in (mean_gap_s, mean_run_s))
    gap_s = likely_gap_s(gap, run, running) if running else None
    room = found - limit + max(1, limit // 20)
    retry_after_s = NOBODY_WORKS_S
    if gap_s is not None:
        retry_after_s = min(3_600.0, max(1.0, round(room * gap_s, 1)))
    return QueueFull(
        f"the queue {queue} holds {held}: submit again in {retry_after_s:g} s, add workers, or "
        "raise CROSSMODAL_MAX_QUEUE_LENGTH",
        retry_after_s,
    )
