"""One Redis call that notes, takes and acknowledges many messages: `take.lua`."""

import hashlib
import json
import uuid
from functools import cache
from importlib import resources
from itertools import count
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

MAX_AT_ONCE = 1_000  # Lua's stack holds a few thousand values
PROCESS = uuid.uuid4().hex  # prefix of this process's delivery tags
_numbers = count()


class Taken(NamedTuple):
    """A message as it lay in a queue, noted as in hand under a delivery tag."""

    queue: str
    raw: bytes
    tag: str


@cache
def script() -> str:
    """Return the text of the script, to load into a server."""
    return resources.files("worker.celery").joinpath("take.lua").read_text()


@cache
def digest() -> str:
    """Return the SHA-1 digest by which a server knows the script."""
    return hashlib.sha1(script().encode(), usedforsecurity=False).hexdigest()


class Taker:
    """A runner of the script for a kombu channel, over one of its clients."""

    def __init__(self, channel: Any, client: Any) -> None:
        self._channel = channel
        self._client = client

    def take(
        self, lanes: list[tuple[int, list[str]]], given: tuple[str, bytes] | None
    ) -> list[Taken]:
        """Note the message that BRPOP returned, and take up to `room` messages for each lane.

        Raises redis-py's errors; then nothing was taken, noted or acknowledged.
        """
        channel = self._channel
        keys = [channel.unacked_key, channel.unacked_index_key]
        prefix = f"{PROCESS}.{next(_numbers)}."
        args: list[Any] = [prefix, len(channel.priority_steps)]
        args += [json.dumps(given[0]), given[1]] if given else ["", ""]
        args.append(len(lanes))
        for room, queues in lanes:
            keys += channel._lists_of(queues)
            args += [min(room, MAX_AT_ONCE), len(queues), *map(json.dumps, queues)]
        acked = channel.shared.acked[:MAX_AT_ONCE]
        found = self._run([channel.global_keyprefix + key for key in keys], [*args, *acked])
        del channel.shared.acked[: len(acked)]
        names = [queue for _, queues in lanes for queue in queues]
        taken = [Taken(*given, f"{prefix}0")] if given else []
        pairs = zip(found[::2], found[1::2], strict=True)
        for number, (queue, raw) in enumerate(pairs, 1):
            taken.append(Taken(names[queue], raw, f"{prefix}{number}"))
        return taken

    def _run(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._send("EVALSHA", digest(), len(keys), *keys, *args)
        except NoScriptError:  # the server was restarted
            self._send("SCRIPT LOAD", script())
            return self._send("EVALSHA", digest(), len(keys), *keys, *args)

    def _send(self, *command: Any) -> Any:
        """Send a command past kombu's client, which would prefix the first key alone."""
        unprefixed: Any = Redis.execute_command
        return unprefixed(self._client, *command)
