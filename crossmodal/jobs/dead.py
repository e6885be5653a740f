"""Dead letters: jobs given up for no fault of their sender, and messages that cannot be run.

The letter of a job is the job's record; the letter of a message is a hash of its own. One sorted
set lists both, and both are kept for the retention of records.
"""

from typing import Any

from crossmodal.errors import CrossmodalError, DeadLetterNotFound, JobNotFound, quoted
from crossmodal.jobs import names
from crossmodal.jobs.calls import Script, Steps, call, redis, undecoded
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.record import DeadLetter, Failure
from crossmodal.settings import Settings

MAX_RAW = 65_536  # bytes kept of a message
LETTER_PREFIX = "message-"


class DeadLetters:
    """The store of dead letters; every method returns a call."""

    def __init__(self, settings: Settings, ledger: JobLedger) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        self._ledger = ledger

    @call
    def set_aside(
        self, queue: str, raw: bytes, error: CrossmodalError, job_id: str | None = None
    ) -> Steps[str]:
        """Keep the beginning of a message that cannot be run; return the letter's id.

        The id is `job_id` if given: the message was the job's only one.
        """
        letter_id = job_id or LETTER_PREFIX + names.new_job_id()
        fields: dict[str, Any] = {
            "queue": queue,
            "code": error.code,
            "message": str(error),
            "size": len(raw),
            "raw": raw[:MAX_RAW],
        }
        flat = [part for pair in fields.items() for part in pair]
        key = names.letter_key(self._prefix, letter_id)
        yield Script(
            "bury_letter", (key,), (self._prefix, letter_id, self._settings.retention_s, *flat)
        )
        return letter_id

    @call
    def list(
        self, code: str | None = None, owner: str = "", max_count: int | None = None
    ) -> Steps[tuple[DeadLetter, ...]]:
        """Return the letters, latest first, filtered by code and owner, at most `max_count`."""
        key = names.dead_key(self._prefix, owner)
        ids = yield redis.zrevrange(key, 0, -1, withscores=True)
        found: tuple[DeadLetter, ...] = ()
        for letter_id, at in ids:
            if len(found) == max_count:
                break
            letter = yield from self._read(letter_id, at)
            if letter is None and owner:
                yield redis.zrem(key, letter_id)
            if letter is not None and code in (None, letter.code):
                found += (letter,)
        return found

    @call
    def count(self) -> Steps[int]:
        """Return the number of letters."""
        return int((yield redis.zcard(self._key)))

    @call
    def get(self, letter_id: str) -> Steps[DeadLetter]:
        """Return a letter. Raises `DeadLetterNotFound`."""
        at = yield redis.zscore(self._key, letter_id)
        letter = None if at is None else (yield from self._read(letter_id, at))
        if letter is None:
            raise DeadLetterNotFound(
                f"there is no dead letter {quoted(letter_id)}: `crossmodal dead list` shows them"
            )
        return letter

    @call
    def drop(self, letter_id: str) -> Steps[None]:
        """Delete a letter; a job's record stays until its retention is over."""
        owner = yield redis.hget(names.job_key(self._prefix, letter_id), "owner")
        yield [
            redis.zrem(self._key, letter_id),
            redis.zrem(names.dead_key(self._prefix, owner or ""), letter_id),
            redis.delete(names.letter_key(self._prefix, letter_id)),
        ]

    @property
    def _key(self) -> str:
        return names.dead_key(self._prefix)

    @call
    def _read(self, letter_id: str, at: float) -> Steps[DeadLetter | None]:
        """Return a letter; None, removing it from the list, if its job or message has expired."""
        if letter_id.startswith(LETTER_PREFIX):
            return (yield from self._read_message(letter_id, at))
        try:
            job = yield from self._ledger.get(letter_id)
        except JobNotFound:
            yield from self.drop(letter_id)
            return None
        failure = job.failure or Failure(code="job_failed", message="")
        history = yield from self._ledger.history(job.id)
        aside = yield from self._message(letter_id)
        return DeadLetter(
            id=job.id,
            at=at,
            code=failure.code,
            message=failure.message,
            queue=job.queue,
            job=job,
            history=tuple(history),
            raw=aside.get(b"raw"),
            size=aside.get(b"size"),
        )

    @call
    def _read_message(self, letter_id: str, at: float) -> Steps[DeadLetter | None]:
        found = yield from self._message(letter_id)
        if not found:
            yield from self.drop(letter_id)
            return None
        raw = found.pop(b"raw")
        fields = {name.decode(): value.decode(errors="replace") for name, value in found.items()}
        return DeadLetter(id=letter_id, raw=raw, **{**fields, "at": at})

    @call
    def _message(self, letter_id: str) -> Steps[dict[bytes, Any]]:
        """Return the fields kept of a message, undecoded."""
        key = names.letter_key(self._prefix, letter_id)
        return dict((yield undecoded(redis.hgetall(key))))
