"""Dead letters: what was given up for no fault of its sender, or was no message at all.

A dead job is its own record; a message that was set aside is a hash of its own. One sorted
set lists both, and both are kept as long as any record.
"""

from collections.abc import Iterator
from typing import Any

from redis import Redis

from crossmodal.errors import CrossmodalError, DeadLetterNotFound, JobNotFound, quoted
from crossmodal.jobs import names
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.record import DeadLetter, Failure
from crossmodal.jobs.scripts import script
from crossmodal.settings import Settings

MAX_RAW = 65_536  # bytes that are kept of a message which was set aside
LETTER_PREFIX = "message-"


class DeadLetters:
    """The list of dead letters. Every method may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings, ledger: JobLedger, redis: Redis | None = None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._redis: Any = redis or connect(settings)
        self._raw: Any = connect(settings, decode=False)  # bytes that are no text stay bytes
        self._bury = self._raw.register_script(script("bury"))

    def set_aside(
        self, queue: str, raw: bytes, error: CrossmodalError, job_id: str | None = None
    ) -> str:
        """Keep the beginning of a message that cannot be run; returns the letter's id.

        That is the job's own, when the message was the only one of a job.
        """
        letter_id = job_id or LETTER_PREFIX + names.new_job_id()
        key = names.letter_key(self._settings.key_prefix, letter_id)
        fields: dict[str, Any] = {
            "queue": queue, "code": error.code, "message": str(error), "size": len(raw),
            "raw": raw[:MAX_RAW],
        }  # fmt: skip
        flat = [part for pair in fields.items() for part in pair]
        prefix, retention = self._settings.key_prefix, self._settings.retention_s
        with broker_errors(self._settings):
            self._bury(keys=[key], args=[prefix, letter_id, retention, *flat])
        return letter_id

    def list(self, code: str | None = None, owner: str = "") -> Iterator[DeadLetter]:
        """All letters, or those with one code or of one owner, the latest first."""
        key = names.dead_key(self._settings.key_prefix, owner)
        with broker_errors(self._settings):
            ids = self._redis.zrevrange(key, 0, -1, withscores=True)
        for letter_id, at in ids:
            letter = self._read(letter_id, at)
            if letter is None and owner:
                with broker_errors(self._settings):
                    self._redis.zrem(key, letter_id)
            if letter is not None and code in (None, letter.code):
                yield letter

    def count(self) -> int:
        """How many letters there are."""
        with broker_errors(self._settings):
            return int(self._redis.zcard(self._key))

    def get(self, letter_id: str) -> DeadLetter:
        """One letter. Raises `DeadLetterNotFound`."""
        with broker_errors(self._settings):
            at = self._redis.zscore(self._key, letter_id)
        letter = None if at is None else self._read(letter_id, at)
        if letter is None:
            raise DeadLetterNotFound(
                f"there is no dead letter {quoted(letter_id)}: `crossmodal dead list` shows them"
            )
        return letter

    def drop(self, letter_id: str) -> None:
        """Take a letter off the list; a job's record stays until its retention is over."""
        prefix = self._settings.key_prefix
        with broker_errors(self._settings):
            owner = self._redis.hget(names.job_key(prefix, letter_id), "owner")
            self._redis.zrem(self._key, letter_id)
            self._redis.zrem(names.dead_key(prefix, owner or ""), letter_id)
            self._redis.delete(names.letter_key(self._settings.key_prefix, letter_id))

    def close(self) -> None:
        self._raw.close()

    @property
    def _key(self) -> str:
        return names.dead_key(self._settings.key_prefix)

    def _read(self, letter_id: str, at: float) -> DeadLetter | None:
        """The letter; None, and off the list, when what it was about has expired."""
        if letter_id.startswith(LETTER_PREFIX):
            return self._read_message(letter_id, at)
        try:
            job = self._ledger.get(letter_id)
        except JobNotFound:
            self.drop(letter_id)
            return None
        failure = job.failure or Failure(code="job_failed", message="")
        aside = self._message(letter_id)
        return DeadLetter(
            id=job.id, at=at, code=failure.code, message=failure.message, queue=job.queue,
            job=job, history=tuple(self._ledger.history(job.id)),
            raw=aside.get(b"raw"), size=aside.get(b"size"),
        )  # fmt: skip

    def _read_message(self, letter_id: str, at: float) -> DeadLetter | None:
        found = self._message(letter_id)
        if not found:
            self.drop(letter_id)
            return None
        raw = found.pop(b"raw")
        fields = {name.decode(): value.decode(errors="replace") for name, value in found.items()}
        return DeadLetter(id=letter_id, raw=raw, **{**fields, "at": at})

    def _message(self, letter_id: str) -> dict[bytes, Any]:
        with broker_errors(self._settings):
            key = names.letter_key(self._settings.key_prefix, letter_id)
            return dict(self._raw.hgetall(key))
