"""Running a dead letter again: as a new job, or as the message that it was."""

from crossmodal.errors import InvalidParams
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.names import messages_key
from crossmodal.jobs.record import DeadLetter, Job
from producer.calls import ClientCalls


@call
def replay(
    calls: ClientCalls, letters: DeadLetters, letter: DeadLetter, max_queued: int | None = None
) -> Steps[str | None]:
    """Submit a dead job again and return the new id, or put a message back and return None.

    Owner and webhook stay the same. `max_queued` is the limit of the API key that makes the
    call, if any. Raises `InvalidParams` for a message that is truncated, whose queue is unknown,
    or that belongs to a batch.
    """
    job_id = None
    if letter.job is not None:
        job_id = yield from _replay_job(calls, letter.job, max_queued)
    elif letter.raw is not None:
        if letter.size != len(letter.raw):
            raise InvalidParams(
                f"only the first {len(letter.raw)} of {letter.size} bytes of {letter.id} were "
                "kept: it cannot be replayed, only dropped"
            )
        if not letter.queue:
            raise InvalidParams(
                f"{letter.id} was an unacknowledged message, and its queue is not known: it "
                "cannot be replayed, only dropped"
            )
        yield redis.lpush(messages_key(calls.settings.key_prefix, letter.queue), letter.raw)
    yield from letters.drop(letter.id)
    return job_id


@call
def _replay_job(calls: ClientCalls, job: Job, max_queued: int | None) -> Steps[str]:
    if job.task.is_bulk:
        raise InvalidParams(
            f"{job.id} is a message of a batch and cannot be replayed alone: run the failed items "
            "again as a batch with another id (`crossmodal batch run --id ID`)"
        )
    # Idempotent: a second replay, also after a crash before the drop, makes no second job.
    return (yield from calls.retry(job.id, max_queued=max_queued))
