"""The ledger's scripts in Python, as far as a client's jobs need them.

The file of the same name in `crossmodal/jobs/scripts/` documents each; fairness among owners,
webhooks and retention are left out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from crossmodal.jobs import names
from crossmodal.jobs.batches import MIXED
from crossmodal.jobs.record import JobState
from producer.fake.redis import FakeRedis, Function

Reply = list[Any]


class Submitted(NamedTuple):
    """The arguments of submit.lua, in its order; `_` is what a fake does not need."""

    prefix: str
    job_id: str
    task: str
    queue: str
    params: str
    fingerprint: str
    expires_in_s: Any
    limit: Any
    message: str
    batch: str
    number: int
    items: int
    most: int
    owner: str
    max_queued: Any
    max_batch: int
    traceparent: str
    webhook: str
    priority: int
    keep_s: Any
    refuses: int


def submit(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """Create a job, unless it exists, its idempotency key is taken, or its queue is full."""
    job, guard = keys
    new = Submitted(*args)
    queued = redis.sets[names.queue_key(new.prefix, new.queue, "queued")]
    if reply := _known(redis, new, job, guard) or _refused(redis, new, queued):
        return reply
    now = _now(redis)
    _set(redis, job, _record(new, now))
    if guard != job:
        _set(redis, guard, {"id": new.job_id, "fingerprint": new.fingerprint})
        _set(redis, job, {"idempotency": guard})
    if new.batch:
        _join(redis, new)
    else:
        redis.sets[names.jobs_key(new.prefix, new.owner)][new.job_id] = now
    queued[new.job_id] = now
    _add(redis, names.queue_key(new.prefix, new.queue, "stats"), "submitted", 1)
    redis.messages.append(new.job_id)
    redis.tell(names.shard_key(new.prefix, new.job_id), id=new.job_id, state="queued")
    return ["created", new.job_id]


def _known(redis: FakeRedis, new: Submitted, job: str, guard: str) -> Reply | None:
    """Return the reply if the job, or one of the same idempotency key, exists."""
    if guard != job and (known := redis.hgetall(guard)):
        reason = "existing" if known["fingerprint"] == new.fingerprint else "conflict"
        return [reason, known["id"]]
    return ["existing", new.job_id] if job in redis.hashes else None


def _refused(redis: FakeRedis, new: Submitted, queued: Mapping[str, float]) -> Reply | None:
    """Return why the job is refused, if it is."""
    if new.batch and redis.hget(names.batch_key(new.prefix, new.batch), "is_canceled"):
        return ["canceled", new.batch]
    if new.refuses and redis.hget(names.paused_key(new.prefix), new.queue):
        return ["paused"]
    if new.limit and len(queued) >= new.limit:
        return ["full", len(queued), len(queued), 0, "", ""]
    if new.owner and new.max_queued:
        owners = [_of(redis, new.prefix, job_id).get("owner") for job_id in queued]
        if owners.count(new.owner) >= new.max_queued:
            return ["owner_full", owners.count(new.owner)]
    return None


def _record(new: Submitted, now: float) -> dict[str, Any]:
    """Return the fields of a new job's record."""
    optional = {
        "owner": new.owner,
        "webhook": new.webhook,
        "batch": new.batch and names.batch_key(new.prefix, new.batch),
        "items": new.items,
        "expires_at": "" if new.expires_in_s == "" else now + new.expires_in_s,
        "priority": new.priority or "",
        "keep_s": new.keep_s,
    }
    return {
        "task": new.task,
        "queue": new.queue,
        "state": "queued",
        "attempt": 0,
        "params": new.params,
        "created_at": now,
    } | {name: value for name, value in optional.items() if value != ""}


def _join(redis: FakeRedis, new: Submitted) -> None:
    """Count a bulk message in its batch."""
    key = names.batch_key(new.prefix, new.batch)
    known = redis.hashes[key]
    known.setdefault(f"most:{new.task}", str(new.most))
    kind = new.task if known.get("task", new.task) == new.task else MIXED
    _set(redis, key, {"task": kind, "messages": new.number + 1})
    _add(redis, key, "items", new.items)


def start(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """Begin an attempt if the job is queued and its queue not paused."""
    prefix, job_id, worker, *_ = args
    if expire(redis, keys, args)[0] == "expired":
        return ["expired", 0]
    job = redis.hgetall(keys[0])
    if not job:
        return ["unknown"]
    if job["state"] == "queued" and redis.hget(names.paused_key(prefix), job["queue"]):
        return ["paused", 0]
    if job["state"] != "queued":
        return ["busy" if job["state"] == "running" else job["state"], 0]
    now, attempt = _now(redis), int(job["attempt"]) + 1
    _set(
        redis,
        keys[0],
        {"state": "running", "attempt": attempt, "worker": worker, "started_at": now},
    )
    redis.sets[names.queue_key(prefix, job["queue"], "queued")].pop(job_id, None)
    redis.sets[names.queue_key(prefix, job["queue"], "running")][job_id] = now
    _tell(redis, prefix, job_id, "running", attempt)
    return ["run", attempt, job["params"], job["created_at"], str(now), 1, 0, 0, ""]


def finish(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """End a job; refused unless `attempt` is the running one."""
    prefix, job_id, attempt, state, field, text, code, _, _, completed = args
    job = redis.hgetall(keys[0])
    if job.get("state") != "running" or job["attempt"] != str(attempt):
        return ["refused", job.get("state", "unknown"), attempt]
    _set(redis, keys[0], {field: text})
    _end(redis, prefix, job_id, state, code, completed)
    return ["ok"]


def cancel(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """Cancel a job that has not ended."""
    job = redis.hgetall(keys[0])
    if not job:
        return ["unknown"]
    if JobState(job["state"]).is_terminal:
        return [job["state"]]
    _end(redis, args[0], args[1], "canceled", "canceled")
    return ["canceled"]


def expire(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """Expire a queued job that did not start before its deadline."""
    job = redis.hgetall(keys[0])
    is_over = "expires_at" in job and _now(redis) >= float(job["expires_at"])
    if not is_over or job["state"] != "queued" or job["attempt"] != "0":
        return ["unchanged"]
    _end(redis, args[0], args[1], "expired", "expired")
    return ["expired"]


def remove(redis: FakeRedis, keys: list[str], args: list[Any]) -> Reply:
    """Delete the record of a job that has ended."""
    prefix, job_id, *_ = args
    job = redis.hgetall(keys[0])
    if not job:
        return ["unknown"]
    if not JobState(job["state"]).is_terminal:
        return ["refused", job["state"]]
    for key in (keys[0], job.get("idempotency", "")):
        redis.hashes.pop(key, None)
    redis.lists.pop(names.events_key(prefix, job_id), None)
    redis.sets[names.jobs_key(prefix, job.get("owner", ""))].pop(job_id, None)
    return ["ok"]


def cancel_batch(redis: FakeRedis, keys: list[str], args: list[Any]) -> Any:
    """Cancel a batch job; return the number of its messages."""
    if keys[0] not in redis.hashes:
        return 0
    _set(redis, keys[0], {"is_canceled": 1})
    return int(redis.hashes[keys[0]]["messages"])


def fix_batch_limits(redis: FakeRedis, keys: list[str], args: list[Any]) -> Any:
    """Fix the max items of a batch job's messages; the first value stays for good."""
    known = redis.hashes[keys[0]]
    wanted = zip(args[3::2], args[4::2], strict=True)
    return [int(known.setdefault(f"most:{kind}", str(most))) for kind, most in wanted]


FUNCTIONS: dict[str, Function] = {
    "submit": submit,
    "start": start,
    "finish": finish,
    "cancel": cancel,
    "expire": expire,
    "remove": remove,
    "cancel_batch": cancel_batch,
    "fix_batch_limits": fix_batch_limits,
}


def _end(
    redis: FakeRedis, prefix: str, job_id: str, state: str, code: str, completed: int = 0
) -> None:
    """Move a job to a terminal state; the only function that does."""
    job, now = _of(redis, prefix, job_id), _now(redis)
    _set(redis, names.job_key(prefix, job_id), {"state": state, "finished_at": now})
    for part in ("queued", "running"):
        redis.sets[names.queue_key(prefix, job["queue"], part)].pop(job_id, None)
    stats = names.queue_key(prefix, job["queue"], "stats")
    _add(redis, stats, f"finished:{state}", 1)
    if state == "failed":
        _add(redis, stats, f"failed:{code}", 1)
    if "batch" in job:
        _add(redis, job["batch"], state, 1)
        _add(redis, job["batch"], "items_completed", completed)
        _add(redis, job["batch"], "items_failed", int(job["items"]) - completed)
    _tell(redis, prefix, job_id, state, int(job["attempt"]), "" if state == "succeeded" else code)


def _tell(
    redis: FakeRedis, prefix: str, job_id: str, state: str, attempt: int, code: str = ""
) -> None:
    redis.tell(names.shard_key(prefix, job_id), id=job_id, state=state)
    step = f"{state} {attempt} {code} {_now(redis):.6f}"
    redis.lists[names.events_key(prefix, job_id)].append(step)


def _now(redis: FakeRedis) -> float:
    seconds, micros = redis.time()
    return round(seconds + micros / 1e6, 6)  # as precise as replies are: cursors contain it


def _of(redis: FakeRedis, prefix: str, job_id: str) -> dict[str, str]:
    return redis.hgetall(names.job_key(prefix, job_id))


def _set(redis: FakeRedis, key: str, fields: dict[str, Any]) -> None:
    redis.hashes[key] |= {name: str(value) for name, value in fields.items()}


def _add(redis: FakeRedis, key: str, name: str, number: int) -> None:
    redis.hashes[key][name] = str(int(redis.hashes[key].get(name, 0)) + int(number))
