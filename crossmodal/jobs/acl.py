"""What each side may do in Redis: the commands and keys of its ACL user, and nothing else.

The tests run with these users, and fail when the server has denied one of them anything.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from crossmodal.jobs.connection import address_of
from crossmodal.jobs.names import celery_prefix, messages_key
from crossmodal.kinds.task import tasks
from crossmodal.settings import Settings

PRIORITIES = ("??[369]", "??-1")  # how the names of lists of other priorities than 0 end

# What redis-py says when it connects, and what the memory guard and `doctor` ask. Not CONFIG GET:
# it shows the server's passwords.
CONNECTION = ("client|setinfo", "client|setname", "info", "ping", "select", "time")
# The ledger's, also those within its scripts: Redis checks them too.
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
# Celery's: to take messages, to give them back, and to be told what to do.
CELERY = ("brpop", "hscan", "psubscribe", "publish", "punsubscribe", "subscribe", "unsubscribe")
RESULTS = ("incr", "mget", "setex")  # of Celery's result backend
# Redis 7.0 loads no rule with a subcommand that it does not know; 6.2 takes any name for one.
UNKNOWN_TO_7_0 = ("client|setinfo",)

# Replies to remote control: a UUID is before them, where another deployment's have their prefix.
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
# Remote control, all events, and those of workers, which Celery's gossip listens to.
KOMBU_CHANNELS = ("celery.pidbox", "celeryev/*", "celeryev/worker.*")
RESULT_KEYS = ("celery-task-meta-*", "celery-taskset-meta-*", "chord-unlock-*")


class Role(StrEnum):
    """Who connects."""

    PRODUCER = "producer"
    """Submits and reads: the client, the gateway, the command line."""
    WORKER = "worker"
    """Workers, the background process, Flower, and senders of plain Celery messages."""


def rules(settings: Settings, role: Role, version: tuple[int, int] | None = None) -> list[str]:
    """The rules of a role, as `ACL SETUSER` takes them; `version` is the server's, if it is old."""
    commands = set(CONNECTION) | set(LEDGER)
    if role is Role.WORKER:
        commands |= set(CELERY) | (set(RESULTS) if settings.result_backend else set())
    if version is not None and (7, 0) <= version < (7, 2):
        commands -= set(UNKNOWN_TO_7_0)
    put = "~" if version is not None and version < (7, 0) else "%W~"  # 6.2 cannot tell them apart
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
    """The keys of a role: never those of another prefix."""
    prefix = settings.key_prefix
    if role is Role.PRODUCER:
        # No key of the ledger begins with c, so that `<prefix>:celery:` is not among them.
        return [f"{prefix}:[^c]*"]
    if below := celery_prefix(prefix):
        return [f"{prefix}:[^c]*", f"{below}*"]
    lists = _of_all_priorities(_queues(settings))
    return [f"{prefix}:*", *lists, *KOMBU_KEYS, *(RESULT_KEYS if settings.result_backend else ())]


def put_patterns(settings: Settings, role: Role) -> list[str]:
    """The keys that a role puts something into, and may not read or take from: queues."""
    if role is not Role.PRODUCER:
        return []
    lists = [messages_key(settings.key_prefix, queue) for queue in _queues(settings)]
    return _of_all_priorities(lists)


def channel_patterns(settings: Settings, role: Role) -> list[str]:
    """Where a role may publish and listen; to listen by pattern, Redis wants that very pattern."""
    if role is Role.PRODUCER:
        return []
    below, database = celery_prefix(settings.key_prefix), address_of(settings).db
    results = RESULT_KEYS[:1] if settings.result_backend else ()
    told = [f"/{database}.{name}" for name in KOMBU_CHANNELS]
    return [below + name for name in (*told, *results)]


def user_line(name: str, secret: str, rules: Sequence[str]) -> str:
    """A user as a line of `redis.conf` or of an ACL file; `secret` is `>password` or `#sha256`."""
    return " ".join(("user", name, "on", secret, *rules))


def hashed(password: str) -> str:
    """A password as an ACL file may keep it."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _of_all_priorities(lists: Sequence[str]) -> list[str]:
    return [name + end for name in lists for end in ("", *PRIORITIES)]


def _queues(settings: Settings) -> list[str]:
    plain = [settings.plain_queue] if settings.plain_queue else []
    own = [name for task in tasks() for name in (str(task), f"{task.kind.name}.*")]
    return [*dict.fromkeys(own), *plain]
