"""The strings both sides must agree on: task names, queue names, Redis keys, blob keys."""

import hashlib
import os
import re
import time
from enum import StrEnum
from functools import cached_property

from crossmodal.errors import InvalidParams

# On messages whose job had its record before they were sent: without it, they are not run.
RECORDED_HEADER = "crossmodal_recorded"
# Where workers put the `expires` of a plain message: expiring is for the ledger to do.
EXPIRES_HEADER = "crossmodal_expires"
SHARDS = 64  # of the streams that transitions are told in
MAX_IDEMPOTENCY_KEY = 200
MAX_BATCH_ID = 100  # so that its messages have ids of at most 128
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Task(StrEnum):
    """A kind of job; the value is also the name of its queue.

    A bulk job is one message with many items, each of which might be a job of its own.
    """

    TXT2IMG = "txt2img"
    IMG2TXT = "img2txt"
    TXT2IMG_BULK = "txt2img.bulk"
    IMG2TXT_BULK = "img2txt.bulk"

    @property
    def celery_name(self) -> str:
        return f"crossmodal.{self.value}"

    @property
    def queue(self) -> str:
        return self.value

    @cached_property
    def is_bulk(self) -> bool:
        return self in (Task.TXT2IMG_BULK, Task.IMG2TXT_BULK)

    @cached_property
    def of_items(self) -> "Task":
        """What one item of a bulk job is; any other task itself."""
        return Task(self.value.removesuffix(".bulk"))

    @cached_property
    def in_bulk(self) -> "Task":
        """The bulk job that has such items."""
        return Task(f"{self.of_items}.bulk")


def new_job_id() -> str:
    """A UUID version 7 (RFC 9562): sorts by the time it was made."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_job_id(job_id: str) -> bool:
    """Whether `job_id` can safely be part of a key; no other id ever names a job."""
    return bool(_JOB_ID.fullmatch(job_id))


def check_job_id(job_id: str) -> str:
    """`job_id` itself. Raises `InvalidParams` when no job may have it."""
    if not is_job_id(job_id):
        raise InvalidParams(
            f"job id {job_id[:140]!r} is not 1 to 128 letters, digits, '.', '_' or '-'"
        )
    return job_id


def job_key(prefix: str, job_id: str) -> str:
    """The hash that is a job's record."""
    return f"{prefix}:job:{job_id}"


def events_key(prefix: str, job_id: str) -> str:
    """The list of a job's transitions."""
    return f"{prefix}:job:{job_id}:events"


def shard_key(prefix: str, job_id: str) -> str:
    """The stream that the transitions of this job and many others are told in."""
    shard = hashlib.sha1(job_id.encode(), usedforsecurity=False).digest()[0] % SHARDS
    return f"{prefix}:events:{shard}"


def queue_key(prefix: str, queue: str, part: str) -> str:
    """`part` is `queued` or `running` (sorted sets of job ids) or `stats` (a hash)."""
    return f"{prefix}:queue:{queue}:{part}"


def leases_key(prefix: str) -> str:
    """The sorted set of running jobs, scored by when their attempts' leases end."""
    return f"{prefix}:leases"


def dead_key(prefix: str) -> str:
    """The sorted set of dead letters, scored by when they were given up."""
    return f"{prefix}:dead"


def letter_key(prefix: str, letter_id: str) -> str:
    """The hash that holds a message which was set aside; dead jobs have their own records."""
    return f"{prefix}:letter:{letter_id}"


def idempotency_key(prefix: str, key: str) -> str:
    """The hash that holds which job a caller's key belongs to. Raises `InvalidParams`."""
    if not (key.isprintable() and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY):
        raise InvalidParams(
            f"the idempotency key {key[:60]!r} is not 1 to {MAX_IDEMPOTENCY_KEY} printable "
            "characters"
        )
    return f"{prefix}:idempotency:{key}"


def batch_key(prefix: str, batch_id: str) -> str:
    """The hash that says which messages belong to a batch."""
    return f"{prefix}:batch:{batch_id}"


def check_batch_id(batch_id: str) -> str:
    """`batch_id` itself. Raises `InvalidParams` when no batch may have it."""
    if not (is_job_id(batch_id) and len(batch_id) <= MAX_BATCH_ID):
        raise InvalidParams(
            f"batch id {batch_id[:140]!r} is not 1 to {MAX_BATCH_ID} letters, digits, '.', '_' "
            "or '-'"
        )
    return batch_id


def bulk_job_id(batch_id: str, number: int) -> str:
    """The job that carries a batch's items of one message; a rerun finds it by this name."""
    return f"{batch_id}.{number}"


RESULTS, INPUTS, CHECKS = "results", "inputs", "checks"  # the folders of the object store


def job_of_result(key: str) -> str:
    """The id of the job that a blob under `results/` is of."""
    return key.split("/")[1]


def result_key(job_id: str, name: str, attempt: int = 1) -> str:
    """Where a job's output lies in the object store.

    Later attempts write elsewhere, so that one that was taken for dead cannot replace what
    the record of another points to.
    """
    return f"{RESULTS}/{job_id}/{name}" if attempt == 1 else f"{RESULTS}/{job_id}/{attempt}/{name}"


def input_key(sha256: str) -> str:
    """Where an uploaded picture lies: named by its content, so it is stored once."""
    return f"{INPUTS}/{sha256[:2]}/{sha256}"
