"""The strings both sides must agree on: task names, queue names, Redis keys, blob keys."""

import hashlib
import os
import re
import time

from crossmodal.errors import InvalidParams, quoted
from crossmodal.settings import DEFAULT_KEY_PREFIX

# On messages whose job had its record before they were sent: without it, they are not run.
RECORDED_HEADER = "crossmodal_recorded"
# Where workers put the `expires` of a plain message: expiring is for the ledger to do.
EXPIRES_HEADER = "crossmodal_expires"
CAPTIONS = "captions.json"  # of a job that describes a picture, beside no picture
BACKGROUND = "background"  # what the process that sends webhooks and runs batches says it serves
SHARDS = 64  # of the streams that transitions are told in
MAX_IDEMPOTENCY_KEY = 200
MAX_BATCH_ID = 100  # so that its messages have ids of at most 128
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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
            f"job id {quoted(job_id[:140])} is not 1 to 128 letters, digits, '.', '_' or '-'"
        )
    return job_id


def celery_prefix(prefix: str) -> str:
    """What goes before every key of Celery's; nothing by default, as plain Celery has it."""
    return "" if prefix == DEFAULT_KEY_PREFIX else f"{prefix}:celery:"


def messages_key(prefix: str, queue: str, priority: int = 0) -> str:
    """The list of a queue's messages that have this priority, in kombu's terms."""
    return celery_prefix(prefix) + queue + (f"\x06\x16{priority}" if priority else "")


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


def watched_key(prefix: str, job_id: str) -> str:
    """What is there while somebody follows how far a job is."""
    return f"{prefix}:watched:{job_id}"


def queue_key(prefix: str, queue: str, part: str) -> str:
    """`part` is `queued` or `running` (sorted sets of job ids) or `stats` (a hash)."""
    return f"{prefix}:queue:{queue}:{part}"


def paused_key(prefix: str) -> str:
    """The hash of the queues that are paused, and since when."""
    return f"{prefix}:paused"


def leases_key(prefix: str) -> str:
    """The sorted set of running jobs, scored by when their attempts' leases end."""
    return f"{prefix}:leases"


def dead_key(prefix: str, owner: str = "") -> str:
    """The sorted set of dead letters, or of an owner's, scored by when they were given up."""
    return f"{prefix}:dead:{owner}" if owner else f"{prefix}:dead"


def letter_key(prefix: str, letter_id: str) -> str:
    """The hash that holds a message which was set aside; dead jobs have their own records."""
    return f"{prefix}:letter:{letter_id}"


def idempotency_key(prefix: str, key: str) -> str:
    """The hash that holds which job a caller's key belongs to. Raises `InvalidParams`."""
    if not (key.isprintable() and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY):
        raise InvalidParams(
            f"the idempotency key {quoted(key[:60])} is not 1 to {MAX_IDEMPOTENCY_KEY} printable "
            "characters"
        )
    return f"{prefix}:idempotency:{key}"


def jobs_key(prefix: str, owner: str) -> str:
    """The sorted set of an owner's jobs, scored by when they were submitted."""
    return f"{prefix}:jobs:{owner}"


def ended_jobs_key(prefix: str, owner: str) -> str:
    """The sorted set of those of an owner's jobs that have ended, scored by when they did."""
    return f"{jobs_key(prefix, owner)}:ended"


def delivery_key(prefix: str, delivery_id: str) -> str:
    """The hash that is the record of a webhook's delivery."""
    return f"{prefix}:delivery:{delivery_id}"


def deliveries_key(prefix: str, owner: str) -> str:
    """The sorted set of an owner's deliveries, scored by when they came to be."""
    return f"{prefix}:deliveries:{owner}"


def webhooks_key(prefix: str, part: str) -> str:
    """`part` is `pending` (sorted set, scored by when to try again) or `stats` (a hash)."""
    return f"{prefix}:webhooks:{part}"


def probe_key(prefix: str) -> str:
    """What is written only to see whether anything can be."""
    return f"{prefix}:probe"


def workers_key(prefix: str) -> str:
    """The hash of what each worker said of itself last."""
    return f"{prefix}:workers"


def models_key(prefix: str) -> str:
    """The hash of what was told of each model last."""
    return f"{prefix}:models"


def vocabularies_key(prefix: str) -> str:
    """The hash of the words that models know, which few ask for."""
    return f"{prefix}:vocabularies"


def loading_key(prefix: str, model: str) -> str:
    """The name of the worker that is about to load a model."""
    return f"{prefix}:loading:{model}"


def api_key_key(prefix: str, key_id: str) -> str:
    """The hash that is the record of an API key, which is the owner of jobs."""
    return f"{prefix}:api-key:{key_id}"


def api_keys_key(prefix: str) -> str:
    """The set of the ids of all API keys."""
    return f"{prefix}:api-keys"


def batch_key(prefix: str, batch_id: str) -> str:
    """The hash that says which messages belong to a batch."""
    return f"{prefix}:batch:{batch_id}"


def http_batch_key(prefix: str, batch_id: str) -> str:
    """The record of a batch that came over HTTP as a file."""
    return f"{prefix}:http-batch:{batch_id}"


def file_key(prefix: str, file_id: str) -> str:
    """The record of a file that came over HTTP."""
    return f"{prefix}:file:{file_id}"


def check_batch_id(batch_id: str) -> str:
    """`batch_id` itself. Raises `InvalidParams` when no batch may have it."""
    if not (is_job_id(batch_id) and len(batch_id) <= MAX_BATCH_ID):
        raise InvalidParams(
            f"batch id {quoted(batch_id[:140])} is not 1 to {MAX_BATCH_ID} letters, digits, '.', "
            "'_' or '-'"
        )
    return batch_id


def bulk_job_id(batch_id: str, number: int) -> str:
    """The job that carries a batch's items of one message; a rerun finds it by this name."""
    return f"{batch_id}.{number}"


# The folders of the object store.
RESULTS, INPUTS, PREVIEWS, CHECKS = "results", "inputs", "previews", "checks"
_INPUT = re.compile(rf"{INPUTS}/(?:[^/]+/)?[0-9a-f]{{2}}/([0-9a-f]{{64}})")


def job_of_result(key: str) -> str:
    """The id of the job that a blob under `results/` or `previews/` is of."""
    return key.split("/")[1]


def result_key(job_id: str, name: str, attempt: int = 1) -> str:
    """Where a job's output lies in the object store.

    Later attempts write elsewhere, so that one that was taken for dead cannot replace what
    the record of another points to.
    """
    return f"{RESULTS}/{job_id}/{name}" if attempt == 1 else f"{RESULTS}/{job_id}/{attempt}/{name}"


def preview_key(job_id: str, attempt: int) -> str:
    """Where an attempt puts what it has drawn so far, each time in place of the last."""
    return f"{PREVIEWS}/{job_id}/{attempt}.jpeg"


def input_key(sha256: str, owner: str = "") -> str:
    """Where an uploaded picture lies: named by its content, so an owner's is stored once."""
    folder = f"{INPUTS}/{owner}" if owner else INPUTS
    return f"{folder}/{sha256[:2]}/{sha256}"


def digest_of_input(key: str) -> str | None:
    """The digest that an uploaded picture's key says it has."""
    found = _INPUT.fullmatch(key)
    return found[1] if found else None


def owner_of_input(key: str) -> str:
    """Whose an uploaded picture is; empty for nobody's in particular."""
    parts = key.split("/")
    return parts[1] if len(parts) == 4 else ""
