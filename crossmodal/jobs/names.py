"""Names that producers and workers share: message headers, Redis keys, blob keys."""

import hashlib
import os
import re
import time

from crossmodal.errors import InvalidParams, quoted
from crossmodal.settings import DEFAULT_KEY_PREFIX

# Marks a message whose job record was written before it was sent: without a record it is not run.
RECORDED_HEADER = "crossmodal_recorded"
# Workers move the `expires` header of a plain message here, because the ledger expires jobs.
EXPIRES_HEADER = "crossmodal_expires"
CAPTIONS = "captions.json"  # the output blob of an img2txt job
BACKGROUND = "background"  # the role that the process of webhook sender and batch runner reports
SHARDS = 64  # streams of transitions; equals SHARDS in common.lua
MAX_IDEMPOTENCY_KEY = 200
MAX_BATCH_ID = 100  # so that the ids of its messages have at most 128 characters
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def new_job_id() -> str:
    """Return a new UUID version 7 (RFC 9562), which sorts by creation time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_job_id(job_id: str) -> bool:
    """Return whether `job_id` is valid, and so safe as part of a key."""
    return bool(_JOB_ID.fullmatch(job_id))


def check_job_id(job_id: str) -> str:
    """Return `job_id`. Raises `InvalidParams` if it is not valid."""
    if not is_job_id(job_id):
        raise InvalidParams(
            f"job id {quoted(job_id[:140])} is not 1 to 128 letters, digits, '.', '_' or '-'"
        )
    return job_id


def celery_prefix(prefix: str) -> str:
    """Return the prefix of Celery's keys; empty by default, as in plain Celery."""
    return "" if prefix == DEFAULT_KEY_PREFIX else f"{prefix}:celery:"


def messages_key(prefix: str, queue: str, priority: int = 0) -> str:
    """Return the key of the list of a queue's messages with a kombu priority."""
    return celery_prefix(prefix) + queue + (f"\x06\x16{priority}" if priority else "")


def job_key(prefix: str, job_id: str) -> str:
    """Return the key of a job's record, a hash."""
    return f"{prefix}:job:{job_id}"


def events_key(prefix: str, job_id: str) -> str:
    """Return the key of the list of a job's transitions."""
    return f"{prefix}:job:{job_id}:events"


def shard_key(prefix: str, job_id: str) -> str:
    """Return the key of the stream of transitions that a job shares with others."""
    shard = hashlib.sha1(job_id.encode(), usedforsecurity=False).digest()[0] % SHARDS
    return f"{prefix}:events:{shard}"


def watched_key(prefix: str, job_id: str) -> str:
    """Return the key that exists while a client follows a job's progress."""
    return f"{prefix}:watched:{job_id}"


def queue_key(prefix: str, queue: str, part: str) -> str:
    """Return the key of a part: `queued` or `running` (sorted sets of ids) or `stats` (hash)."""
    return f"{prefix}:queue:{queue}:{part}"


def paused_key(prefix: str) -> str:
    """Return the key of the hash of paused queues and when each was paused."""
    return f"{prefix}:paused"


def leases_key(prefix: str) -> str:
    """Return the key of the sorted set of running jobs, scored by when their leases end."""
    return f"{prefix}:leases"


def dead_key(prefix: str, owner: str = "") -> str:
    """Return the key of the sorted set of all dead letters, or an owner's, scored by time."""
    return f"{prefix}:dead:{owner}" if owner else f"{prefix}:dead"


def letter_key(prefix: str, letter_id: str) -> str:
    """Return the key of the hash of a dead letter that is a message, not a job."""
    return f"{prefix}:letter:{letter_id}"


def idempotency_key(prefix: str, key: str) -> str:
    """Return the key of the hash that maps an idempotency key to its job.

    Raises `InvalidParams`.
    """
    if not (key.isprintable() and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY):
        raise InvalidParams(
            f"the idempotency key {quoted(key[:60])} is not 1 to {MAX_IDEMPOTENCY_KEY} printable "
            "characters"
        )
    return f"{prefix}:idempotency:{key}"


def jobs_key(prefix: str, owner: str) -> str:
    """Return the key of the sorted set of an owner's jobs, scored by submission time."""
    return f"{prefix}:jobs:{owner}"


def ended_jobs_key(prefix: str, owner: str) -> str:
    """Return the key of the sorted set of an owner's ended jobs, scored by end time."""
    return f"{jobs_key(prefix, owner)}:ended"


def delivery_key(prefix: str, delivery_id: str) -> str:
    """Return the key of a webhook delivery's record, a hash."""
    return f"{prefix}:delivery:{delivery_id}"


def deliveries_key(prefix: str, owner: str) -> str:
    """Return the key of the sorted set of an owner's deliveries, scored by creation time."""
    return f"{prefix}:deliveries:{owner}"


def webhooks_key(prefix: str, part: str) -> str:
    """Return the key of a part: `pending` (sorted set, scored by next try) or `stats` (hash)."""
    return f"{prefix}:webhooks:{part}"


def probe_key(prefix: str) -> str:
    """Return the key that a check writes to test whether Redis accepts writes."""
    return f"{prefix}:probe"


def workers_key(prefix: str) -> str:
    """Return the key of the hash of each worker's last announcement."""
    return f"{prefix}:workers"


def models_key(prefix: str) -> str:
    """Return the key of the hash of each model's last announcement."""
    return f"{prefix}:models"


def vocabularies_key(prefix: str) -> str:
    """Return the key of the hash of models' full vocabularies, which few clients read."""
    return f"{prefix}:vocabularies"


def loading_key(prefix: str, model: str) -> str:
    """Return the key that holds the name of the worker that is about to load a model."""
    return f"{prefix}:loading:{model}"


def api_key_key(prefix: str, key_id: str) -> str:
    """Return the key of an API key's record, a hash; its id is the owner of jobs."""
    return f"{prefix}:api-key:{key_id}"


def api_keys_key(prefix: str) -> str:
    """Return the key of the set of all API keys' ids."""
    return f"{prefix}:api-keys"


def batch_key(prefix: str, batch_id: str) -> str:
    """Return the key of a batch's counts, a hash."""
    return f"{prefix}:batch:{batch_id}"


def http_batch_key(prefix: str, batch_id: str) -> str:
    """Return the key of the record of a batch job that was submitted over HTTP."""
    return f"{prefix}:http-batch:{batch_id}"


def file_key(prefix: str, file_id: str) -> str:
    """Return the key of the record of a file that was uploaded over HTTP."""
    return f"{prefix}:file:{file_id}"


def check_batch_id(batch_id: str) -> str:
    """Return `batch_id`. Raises `InvalidParams` if it is not valid."""
    if not (is_job_id(batch_id) and len(batch_id) <= MAX_BATCH_ID):
        raise InvalidParams(
            f"batch id {quoted(batch_id[:140])} is not 1 to {MAX_BATCH_ID} letters, digits, '.', "
            "'_' or '-'"
        )
    return batch_id


def bulk_job_id(batch_id: str, number: int) -> str:
    """Return the job id of message `number` of a batch; a rerun yields the same id."""
    return f"{batch_id}.{number}"


# The folders of the object store.
RESULTS, INPUTS, PREVIEWS, CHECKS = "results", "inputs", "previews", "checks"
_INPUT = re.compile(rf"{INPUTS}/(?:[^/]+/)?[0-9a-f]{{2}}/([0-9a-f]{{64}})")


def job_of_result(key: str) -> str:
    """Return the id of the job that owns a blob under `results/` or `previews/`."""
    return key.split("/")[1]


def result_key(job_id: str, name: str, attempt: int = 1) -> str:
    """Return the key of a job's output in the object store.

    Each attempt writes to its own keys, so that an attempt taken for dead cannot overwrite the
    output of another.
    """
    return f"{RESULTS}/{job_id}/{name}" if attempt == 1 else f"{RESULTS}/{job_id}/{attempt}/{name}"


def preview_key(job_id: str, attempt: int) -> str:
    """Return the key of an attempt's preview; each preview replaces the one before."""
    return f"{PREVIEWS}/{job_id}/{attempt}.jpeg"


def input_key(sha256: str, owner: str = "") -> str:
    """Return the key of an uploaded picture: its digest, so an owner's copy is stored once."""
    folder = f"{INPUTS}/{owner}" if owner else INPUTS
    return f"{folder}/{sha256[:2]}/{sha256}"


def digest_of_input(key: str) -> str | None:
    """Return the SHA-256 in an uploaded picture's key; None if it is no such key."""
    found = _INPUT.fullmatch(key)
    return found[1] if found else None


def owner_of_input(key: str) -> str:
    """Return the owner of an uploaded picture; empty if it has none."""
    parts = key.split("/")
    return parts[1] if len(parts) == 4 else ""
