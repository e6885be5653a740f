"""Connections to Redis that answer or fail within the connect timeout, and never hang."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry

from crossmodal.errors import BrokerFull, BrokerUnavailable, InvalidSetting
from crossmodal.settings import Settings, redacted

MUTEX_S = 10  # how long a sweep that died keeps others from sweeping; kombu's own is 300


def connect(settings: Settings, retries: int = 1, decode: bool = True) -> redis.Redis:
    """A client that connects on first use; after a lost connection it sends again at once.

    Without `retries` a command is sent once: for those that must not be sent twice. Without
    `decode`, replies are bytes.
    """
    options = _options(settings, Retry, retries) | {"decode_responses": decode}
    with _checked_url():
        client: redis.Redis = redis.Redis.from_url(**options)
        return client


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """The same for an event loop."""
    with _checked_url():
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            **_options(settings, AsyncRetry, 1)
        )
        return client


def _options(
    settings: Settings, retry: type[Retry] | type[AsyncRetry], retries: int
) -> dict[str, Any]:
    return {
        "url": settings.broker_url.get_secret_value(),
        "decode_responses": True,
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.connect_timeout_s,
        "retry": retry(NoBackoff(), retries, supported_errors=(RedisConnectionError,)),
    }


def is_reachable(settings: Settings) -> bool:
    """Whether Redis answers within a second."""
    hasty = settings.model_copy(update={"connect_timeout_s": min(1.0, settings.connect_timeout_s)})
    try:
        with connect(hasty, retries=0) as client:
            return bool(client.ping())
    except RedisError:
        return False


def sweep_options(settings: Settings) -> dict[str, Any]:
    """What kombu's transport must know on every side that may sweep for dead workers' messages."""
    return {"visibility_timeout": settings.lease_s, "unacked_mutex_expire": MUTEX_S}


@contextmanager
def _checked_url() -> Iterator[None]:
    try:
        yield
    except ValueError as e:
        raise InvalidSetting(f"CELERY_BROKER_URL is not a Redis URL: {e}") from e


@contextmanager
def broker_errors(settings: Settings) -> Iterator[None]:
    """Translate what redis-py raises into `BrokerUnavailable` and `BrokerFull`."""
    try:
        yield
    except OutOfMemoryError as e:
        raise BrokerFull(
            f"Redis has used up its maxmemory: {e}. Submit again when jobs have ended, give it "
            "more, or lower CROSSMODAL_RETENTION_S"
        ) from e
    except RedisError as e:
        url = redacted(settings.broker_url.get_secret_value())
        raise BrokerUnavailable(
            f"Redis at {url} failed within {settings.connect_timeout_s:g} s: {e}. "
            "Start one with `crossmodal up`, or set CELERY_BROKER_URL"
        ) from e
