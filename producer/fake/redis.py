"""An in-memory fake of the part of Redis that a client uses.

The ledger's calls are the real ones; `scripts.py` replaces its Lua scripts.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NoReturn

from crossmodal.errors import NotFaked
from crossmodal.jobs.calls import Atomic, Blocking, Command, Pause, Script, Step, Waiting
from crossmodal.jobs.runners import AsyncRunner, Runner
from crossmodal.settings import Settings

POLL_S = 0.01  # of a wait in an event loop

Entry = tuple[tuple[int, int], dict[str, str]]
Function = Callable[["FakeRedis", list[str], list[Any]], list[Any]]


class FakeRedis:
    """Hashes, sorted sets, lists, streams and scripts. Thread-safe."""

    def __init__(self, functions: dict[str, Function]) -> None:
        self.hashes: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.sets: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.lists: defaultdict[str, list[str]] = defaultdict(list)
        self.streams: defaultdict[str, list[Entry]] = defaultdict(list)
        self.messages: list[str] = []
        """Ids of jobs that no worker has taken yet."""
        self.changed = threading.Condition(threading.RLock())
        self._functions = functions
        self._entries = 0

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copy and pickle look these up
            raise AttributeError(name)
        raise missing(name.upper())

    def reply(self, step: Step) -> Any:
        """Return the reply to a step of a call; see `Runner`."""
        if isinstance(step, Blocking):
            return step.function()
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Waiting):
            return self.wait(step.command)
        with self.changed:
            if isinstance(step, Atomic | list):
                commands = step.commands if isinstance(step, Atomic) else step
                return [self.reply(command) for command in commands]
            if isinstance(step, Script):
                return self._run(step)
            name, *args = step.args
            return getattr(self, name.lower())(*args)

    def wait(self, command: Command) -> dict[str, Any]:
        """Read streams as soon as one has new entries, or the timeout is over."""
        block_s, ids = parse_read(command.args)
        with self.changed:
            self.changed.wait_for(lambda: self.read(ids), block_s)
            return self.read(ids)

    def close(self) -> None: ...

    def _run(self, script: Script) -> Any:
        if script.name not in self._functions:
            raise missing("script for this")
        reply = self._functions[script.name](self, [*script.keys], [*script.args])
        self.changed.notify_all()
        return reply

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

    def hsetnx(self, key: str, name: str, value: str) -> None:
        with self.changed:
            self.hashes[key].setdefault(name, value)

    def hdel(self, key: str, name: str) -> None:
        with self.changed:
            self.hashes[key].pop(name, None)

    def set(self, key: str, value: Any, *options: Any) -> None:
        """Ignore SET: clients only set the key of a watched job, which only workers read."""

    def lrange(self, key: str, first: int, last: int) -> list[str]:
        with self.changed:
            return list(self.lists.get(key, []))

    def zcard(self, key: str) -> int:
        return len(self._ranked(key))

    def zrank(self, key: str, member: str) -> int | None:
        members = [found for found, _ in self._ranked(key)]
        return members.index(member) if member in members else None

    def zrange(self, key: str, first: int, last: int, *scores: str) -> list[Any]:
        found = self._ranked(key)[first : last + 1]
        return found if scores else [member for member, _ in found]

    def zrevrange(self, key: str, first: int, last: int, _: str) -> list[Any]:
        return self._ranked(key)[::-1][first : last + 1]

    def zrevrangebyscore(
        self, key: str, most: float, least: str, limit: str, start: int, num: int, _: str
    ) -> list[Any]:
        found = [pair for pair in self._ranked(key)[::-1] if pair[1] <= most]
        return found[start : start + num]

    def xread(self, *args: Any) -> dict[str, Any]:
        _, ids = parse_read(("XREAD", *args))
        return self.read(ids)

    def read(self, ids: dict[str, str]) -> dict[str, Any]:
        """Return the entries of streams after these ids."""
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
            for entry, fields in self.streams.get(key, [])
            if entry > after
        ]

    def _ranked(self, key: str) -> list[tuple[str, float]]:
        with self.changed:
            return sorted(self.sets.get(key, {}).items(), key=lambda pair: (pair[1], pair[0]))


def missing(what: str) -> NotFaked:
    """Return the error for what only a real Redis can do."""
    return NotFaked(
        f"a fake client has no Redis behind it, and no {what}: try this against `crossmodal up`"
    )


class FakeRunner(Runner):
    """A runner of calls over a `FakeRedis`."""

    def __init__(self, settings: Settings, redis: FakeRedis) -> None:
        super().__init__(settings)
        self.redis = redis

    def _reply(self, step: Step) -> Any:
        return self.redis.reply(step)


class AsyncFakeRunner(AsyncRunner):
    """A runner of calls over a `FakeRedis`, on an event loop."""

    def __init__(self, settings: Settings, redis: FakeRedis) -> None:
        super().__init__(settings)
        self._fake = redis

    async def _reply(self, step: Step) -> Any:
        if isinstance(step, Waiting):
            return await self._read(step.command)
        return await asyncio.to_thread(self._fake.reply, step)

    async def _read(self, command: Command) -> dict[str, Any]:
        block_s, ids = parse_read(command.args)
        until = time.monotonic() + block_s
        # Polls, since other threads may add entries.
        while not (found := self._fake.read(ids)) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return found


def parse_read(command: tuple[Any, ...]) -> tuple[float, dict[str, str]]:
    """Return an XREAD's timeout in seconds, and for each stream the id after which it reads."""
    block_s = int(command[2]) / 1_000 if command[1] == b"BLOCK" else 0.0
    streams = command[command.index(b"STREAMS") + 1 :]
    half = len(streams) // 2
    return block_s, dict(zip(streams[:half], streams[half:], strict=True))
