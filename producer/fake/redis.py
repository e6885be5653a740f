"""As much of Redis as a client asks for, in the memory of this process.

The ledger above is the real one; what its scripts do there, `scripts.py` does here.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NoReturn

from crossmodal.errors import NotFaked
from crossmodal.jobs.scripts import script

POLL_S = 0.01  # of one who waits in an event loop

Entry = tuple[tuple[int, int], dict[str, str]]
Function = Callable[["FakeRedis", list[str], list[Any]], list[Any]]


class FakeRedis:
    """Hashes, sorted sets, lists, streams and scripts. Safe to share by threads."""

    def __init__(self, functions: dict[str, Function]) -> None:
        self.hashes: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.sets: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.lists: defaultdict[str, list[str]] = defaultdict(list)
        self.streams: defaultdict[str, list[Entry]] = defaultdict(list)
        self.messages: list[str] = []
        """Ids of jobs that nobody has taken yet."""
        self.changed = threading.Condition(threading.RLock())
        self._functions = {script(name): function for name, function in functions.items()}
        self._entries = 0

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # as copy and pickle ask for
            raise AttributeError(name)
        raise missing(name.upper())

    def register_script(self, text: str) -> Callable[..., Any]:
        """What calls the function that stands for a script; other scripts refuse to be called."""
        function = self._functions.get(text, _refuse)

        def call(keys: list[str], args: list[Any]) -> Any:
            with self.changed:
                reply = function(self, keys, args)
                self.changed.notify_all()
            return reply

        return call

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        return Pipeline(self)

    def close(self) -> None: ...

    # -- commands -----------------------------------------------------------------------

    def time(self) -> tuple[int, int]:
        return divmod(time.time_ns() // 1_000, 1_000_000)

    def info(self, section: str) -> dict[str, Any]:
        return {"used_memory": 0}

    def exists(self, key: str) -> int:
        return int(key in self.hashes)

    def hgetall(self, key: str) -> dict[str, str]:
        with self.changed:
            return dict(self.hashes.get(key, {}))

    def hget(self, key: str, name: str) -> str | None:
        return self.hgetall(key).get(name)

    def hmget(self, key: str, *names: str) -> list[str | None]:
        found = self.hgetall(key)
        return [found.get(name) for name in names]

    def hset(self, key: str, name: str, value: str) -> None:
        with self.changed:
            self.hashes[key][name] = value

    def lrange(self, key: str, first: int, last: int) -> list[str]:
        with self.changed:
            return list(self.lists.get(key, []))

    def zcard(self, key: str) -> int:
        return len(self._ranked(key))

    def zrank(self, key: str, member: str) -> int | None:
        members = [found for found, _ in self._ranked(key)]
        return members.index(member) if member in members else None

    def zrange(self, key: str, first: int, last: int, withscores: bool) -> list[Any]:
        return self._ranked(key)[first : last + 1]

    def zrevrange(self, key: str, first: int, last: int, withscores: bool) -> list[Any]:
        return self._ranked(key)[::-1][first : last + 1]

    def zrevrangebyscore(
        self, key: str, most: float, least: str, start: int, num: int, withscores: bool
    ) -> list[Any]:
        found = [pair for pair in self._ranked(key)[::-1] if pair[1] <= most]
        return found[start : start + num]

    def execute_command(self, *command: Any) -> dict[str, Any]:
        """XREAD of many streams: waits as long as it may for one that has something new."""
        block_s, ids = parse_read(command)
        with self.changed:
            self.changed.wait_for(lambda: self.read(ids), block_s)
            return self.read(ids)

    def read(self, ids: dict[str, str]) -> dict[str, Any]:
        """What streams have after these ids."""
        with self.changed:
            found = {key: self._after(key, last) for key, last in ids.items()}
        return {key: entries for key, entries in found.items() if entries}

    # -- for scripts --------------------------------------------------------------------

    def tell(self, stream: str, **fields: str) -> None:
        """Add an entry to a stream."""
        self._entries += 1
        self.streams[stream].append(((time.time_ns() // 1_000_000, self._entries), fields))

    def _after(self, key: str, last: str) -> list[tuple[str, dict[str, str]]]:
        at, _, number = last.partition("-")
        after = (int(at), int(number or 0))
        return [
            (f"{entry[0]}-{entry[1]}", fields)
            for entry, fields in self.streams.get(key, []) if entry > after
        ]  # fmt: skip

    def _ranked(self, key: str) -> list[tuple[str, float]]:
        with self.changed:
            return sorted(self.sets.get(key, {}).items(), key=lambda pair: (pair[1], pair[0]))


def missing(what: str) -> NotFaked:
    """The error for what only Redis itself can do."""
    return NotFaked(
        f"a fake client has no Redis behind it, and no {what}: try this against `crossmodal up`"
    )


def _refuse(redis: FakeRedis, keys: list[str], args: list[Any]) -> NoReturn:
    raise missing("script for this")


class Pipeline:
    """Commands that are kept until `execute`."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._calls: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        command = getattr(self._redis, name)
        return lambda *args, **kwargs: self._calls.append(lambda: command(*args, **kwargs))

    def execute(self) -> list[Any]:
        with self._redis.changed:
            return [call() for call in self._calls]


class AsyncReads:
    """The same streams for an event loop."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis

    async def execute_command(self, *command: Any) -> dict[str, Any]:
        block_s, ids = parse_read(command)
        until = time.monotonic() + block_s
        # Those who tell may be other threads.
        while not (found := self._redis.read(ids)) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return found

    async def aclose(self) -> None: ...


def parse_read(command: tuple[Any, ...]) -> tuple[float, dict[str, str]]:
    """For how many seconds an XREAD may wait, and after which id of each stream it reads."""
    block_s = command[2] / 1_000 if command[1] == "BLOCK" else 0.0
    streams = command[command.index("STREAMS") + 1 :]
    half = len(streams) // 2
    return block_s, dict(zip(streams[:half], streams[half:], strict=True))
