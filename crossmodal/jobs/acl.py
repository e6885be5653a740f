"""Redis ACLs of producers and workers: the commands, keys and channels that each may use.

The tests run as these users and fail if the server denies them anything.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from crossmodal.jobs.connection import address_of
from crossmodal.jobs.names import celery_prefix, messages_key
from crossmodal.kinds.task import tasks
from crossmodal.settings import Settings

PRIORITIES = ("??[369]", "??-1")  # suffixes of lists of priorities other than 0

# Commands of redis-py's connection setup, the memory guard and `doctor`. Not CONFIG GET: it
# exposes the server's passwords.
CONNECTION = ("client|setinfo", "client|setname", "info", "ping", "select", "time")
# The ledger's commands, including those inside scripts: Redis checks these too.
LEDGER = (
    "del",
    "discard",
    "evalsha",
    "exec",
    "exists",
    "expire",
    "get",
    "hdel",
    "hexists",
    "hget",
    "hgetall",
    "hincrby",
    "hmget",
    "hset",
    "hsetnx",
    "llen",
    "lpop",
    "lpush",
    "lrange",
    "ltrim",
    "multi",
    "persist",
    "rpop",
    "rpush",
    "sadd",
    "scan",
    "scard",
    "script|load",
    "set",
    "smembers",
    "srem",
    "xadd",
    "xread",
    "zadd",
    "zcard",
    "zrange",
    "zrangebyscore",
    "zrank",
    "zrem",
    "zremrangebyrank",
    "zremrangebyscore",
    "zrevrange",
    "zrevrangebyscore",
    "zscore",
)
# Celery's commands: take messages, restore them, and remote control.
CELERY = ("brpop", "hscan", "psubscribe", "publish", "punsubscribe", "subscribe", "unsubscribe")
RESULTS = ("incr", "mget", "setex")  # of Celery's result backend
# Redis 7.0 rejects a rule with an unknown subcommand; 6.2 accepts any name.
UNKNOWN_TO_7_0 = ("client|setinfo",)

# Reply lists of remote control start with a UUID; another deployment's start with its prefix.
REPLIES = f"{'-'.join('?' * n for n in (8, 4, 4, 4, 12))}.reply.celery.pidbox"
KOMBU_KEYS = (
    "_kombu.binding.*",
    "unacked",
    "unacked_index",
    "unacked_mutex",
    REPLIES,
    *(f"{REPLIES}{end}" for end in PRIORITIES),
    "celeryev.*",
)
# Remote control, all events, and worker events, to which Celery's gossip subscribes.
KOMBU_CHANNELS = ("celery.pidbox", "celeryev/*", "celeryev/worker.*")
RESULT_KEYS = ("celery-task-meta-*", "celery-taskset-meta-*", "chord-unlock-*")


class Role(StrEnum):
    """The role of a Redis client."""

    PRODUCER = "producer"
    """Submits and reads: the client, the gateway, the command line."""
    WORKER = "worker"
    """Workers, the background process, Flower, and senders of plain Celery messages."""


def rules(settings: Settings, role: Role, version: tuple[int, int] | None = None) -> list[str]:
    """Return the rules of a role for `ACL SETUSER`; `version` is an old server's version."""
    commands = set(CONNECTION) | set(LEDGER)
    if role is Role.WORKER:
        commands |= set(CELERY) | (set(RESULTS) if settings.result_backend else set())
    if version is not None and (7, 0) <= version < (7, 2):
        commands -= set(UNKNOWN_TO_7_0)
    put = "~" if version is not None and version < (7, 0) else "%W~"  # 6.2 has no %W
    return [
        "resetkeys",
        "resetchannels",
        "-@all",
        *(f"+{command}" for command in sorted(commands)),
        *(f"~{pattern}" for pattern in key_patterns(settings, role)),
        *(f"{put}{pattern}" for pattern in put_patterns(settings, role)),
        *(f"&{pattern}" for pattern in channel_patterns(settings, role)),
    ]


def key_patterns(settings: Settings, role: Role) -> list[str]:
    """Return the patterns of keys that a role reads and writes, never of another prefix."""
    prefix = settings.key_prefix
    if role is Role.PRODUCER:
        # No ledger key begins with c, so this pattern excludes `<prefix>:celery:`.
        return [f"{prefix}:[^c]*"]
    if below := celery_prefix(prefix):
        return [f"{prefix}:[^c]*", f"{below}*"]
    lists = _of_all_priorities(_queues(settings))
    return [f"{prefix}:*", *lists, *KOMBU_KEYS, *(RESULT_KEYS if settings.result_backend else ())]


def put_patterns(settings: Settings, role: Role) -> list[str]:
    """Return the patterns of keys that a role may write but not read: queues."""
    if role is not Role.PRODUCER:
        return []
    lists = [messages_key(settings.key_prefix, queue) for queue in _queues(settings)]
    return _of_all_priorities(lists)


def channel_patterns(settings: Settings, role: Role) -> list[str]:
    """Return the channels of a role; Redis allows PSUBSCRIBE only for an identical pattern."""
    if role is Role.PRODUCER:
        return []
    below, database = celery_prefix(settings.key_prefix), address_of(settings).db
    results = RESULT_KEYS[:1] if settings.result_backend else ()
    told = [f"/{database}.{name}" for name in KOMBU_CHANNELS]
    return [below + name for name in (*told, *results)]


def user_line(name: str, secret: str, rules: Sequence[str]) -> str:
    """Return a line of `redis.conf` or an ACL file; `secret` is `>password` or `#sha256`."""
    return " ".join(("user", name, "on", secret, *rules))


def hashed(password: str) -> str:
    """Return a password's SHA-256 in the form of ACL files."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _of_all_priorities(lists: Sequence[str]) -> list[str]:
    return [name + end for name in lists for end in ("", *PRIORITIES)]


def _queues(settings: Settings) -> list[str]:
    plain = [settings.plain_queue] if settings.plain_queue else []
    own = [name for task in tasks() for name in (str(task), f"{task.kind.name}.*")]
    return [*dict.fromkeys(own), *plain]
