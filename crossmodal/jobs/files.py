"""Records of the files uploaded over HTTP as input of batch jobs."""

import time
from collections.abc import Sequence
from contextlib import suppress

from pydantic import BaseModel, ValidationError

from crossmodal.errors import JobNotFound
from crossmodal.jobs.calls import Atomic, Steps, call, redis
from crossmodal.jobs.names import RESULTS, file_key, is_job_id
from crossmodal.settings import Settings

MAX_LISTED = 10_000


class File(BaseModel):
    """An uploaded file. It is kept for `CROSSMODAL_RETENTION_S`."""

    id: str
    owner: str
    name: str
    size: int
    created_at: float


def bytes_of_file(file_id: str) -> str:
    """Return the key of a file in the object store."""
    return f"{RESULTS}/{file_id}/file.jsonl"


class Files:
    """The store of file records; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s

    @call
    def keep(self, file: File) -> Steps[None]:
        """Record a file whose bytes are stored."""
        index, expired = self._index(file.owner), time.time() - self._retention_s
        yield Atomic(
            [
                redis.set(self._key(file.id), file.model_dump_json(), ex=self._retention_s),
                redis.zadd(index, {file.id: file.created_at}),
                redis.zremrangebyscore(index, "-inf", expired),
                redis.zremrangebyrank(index, 0, -MAX_LISTED - 1),
                redis.expire(index, self._retention_s),
            ]
        )

    @call
    def get(self, file_id: str) -> Steps[File]:
        """Return a file. Raises `JobNotFound`."""
        text = (yield redis.get(self._key(file_id))) if is_job_id(file_id) else None
        if text is None:
            raise JobNotFound(f"there is no file {file_id[:140]!r}")
        try:
            return File.model_validate_json(text)
        except ValidationError as e:
            raise JobNotFound(f"file {file_id} was recorded by another version") from e

    @call
    def some(self, file_ids: Sequence[str]) -> Steps[list[File]]:
        """Return those of the files that exist."""
        texts = yield [redis.get(self._key(file_id)) for file_id in file_ids]
        found = []
        for text in texts:
            with suppress(ValidationError):  # written by another version
                found += [File.model_validate_json(text)] if text is not None else []
        return found

    @call
    def of(self, owner: str) -> Steps[list[str]]:
        """Return the ids of an owner's files, latest first; some may have expired."""
        return list((yield redis.zrevrange(self._index(owner), 0, -1)))

    @call
    def forget(self, file: File) -> Steps[None]:
        """Remove the record of a file whose bytes were deleted."""
        yield Atomic(
            [redis.delete(self._key(file.id)), redis.zrem(self._index(file.owner), file.id)]
        )

    def _index(self, owner: str) -> str:
        return f"{self._prefix}:files:{owner}"

    def _key(self, file_id: str) -> str:
        return file_key(self._prefix, file_id)
