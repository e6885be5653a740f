"""Connections to Redis with timeouts on connect and reply, so that no call hangs."""

import codecs
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    DataError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from crossmodal.errors import (
    BrokerFull,
    BrokerNotTrusted,
    BrokerRefused,
    BrokerUnavailable,
    InvalidSetting,
)
from crossmodal.jobs import idle
from crossmodal.jobs.address import Address, parse_address
from crossmodal.jobs.names import celery_prefix
from crossmodal.settings import Settings, redacted

REMEDIES = {
    "READONLY": "It is a replica: name its primary in CELERY_BROKER_URL",
    "MISCONF": "Free space on its disk, and see its log: it resumes by itself",
    "NOREPLICAS": "Bring its replicas back, or lower its min-replicas-to-write",
}
MUTEX_S = 10  # how long a dead sweep's lock blocks others; kombu's default is 300
CLUSTER_ERRORS = (MovedError, AskError, ClusterCrossSlotError)
READ_LENIENTLY = "crossmodal-read-leniently"  # replaces invalid UTF-8 in replies only
NO_DATABASE = "DB index is out of range"
OF_CLUSTERS = ("non local key", "slot not served")
LASTING = ("ERR", "WRONGTYPE", "EXECABORT")  # prefixes of errors that a retry cannot fix
PASSING = re.compile(r"\b(BUSY|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b")
BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # a closed connection, no TLS failure


def _replace_what_is_read(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace invalid UTF-8 in replies: one damaged value must not fail the whole call."""
    if isinstance(error, UnicodeDecodeError):
        return codecs.replace_errors(error)
    raise error


codecs.register_error(READ_LENIENTLY, _replace_what_is_read)


def connect(
    settings: Settings, retries: int = 1, decode: bool = True, what: str = "client"
) -> redis.Redis:
    """Return a client that connects on first use and resends after a lost connection.

    Use `retries=0` for commands that must not be sent twice. Without `decode`, replies are bytes.
    `what` names the connections in Redis's `CLIENT LIST`.
    """
    address = address_of(settings)
    options = _options(settings, address, Retry, retries, what) | {"decode_responses": decode}
    pool: redis.ConnectionPool
    if address.is_sentinel:
        kwargs = sentinel_options(settings, address)
        sentinel = Sentinel(address.hosts, sentinel_kwargs=kwargs)  # type: ignore[no-untyped-call]
        for one in sentinel.sentinels:
            one.connection_pool.connection_class = idle.Tls if address.tls else idle.Plain
        pool = _MasterPool(  # type: ignore[no-untyped-call]
            settings.sentinel_master,
            sentinel,
            connection_class=idle.ManagedTls if address.tls else idle.Managed,
            **options,
        )
    else:
        kind = idle.Tls if address.tls else idle.Plain
        pool = redis.ConnectionPool(kind, **options, **_host(address))
    return redis.Redis.from_pool(pool)


def connect_async(
    settings: Settings, retries: int = 1, what: str = "client"
) -> redis.asyncio.Redis:
    """Return a client like that of `connect` for an event loop."""
    address = address_of(settings)
    options = _options(settings, address, AsyncRetry, retries, what)
    pool: redis.asyncio.ConnectionPool
    if address.is_sentinel:
        kwargs = sentinel_options(settings, address, AsyncRetry)
        sentinel = async_sentinel.Sentinel(  # type: ignore[no-untyped-call]
            address.hosts, sentinel_kwargs=kwargs
        )
        for one in sentinel.sentinels:
            one.connection_pool.connection_class = idle.AsyncTls if address.tls else idle.AsyncPlain
        pool = _AsyncMasterPool(  # type: ignore[no-untyped-call]
            settings.sentinel_master,
            sentinel,
            connection_class=idle.AsyncManagedTls if address.tls else idle.AsyncManaged,
            **options,
        )
    else:
        kind = idle.AsyncTls if address.tls else idle.AsyncPlain
        pool = _AsyncPool(kind, **options, **_host(address))
    return redis.asyncio.Redis.from_pool(pool)


def address_of(settings: Settings) -> Address:
    """Return the broker's address. Raises `InvalidSetting`."""
    return parse_address(settings.broker_url.get_secret_value())


def _host(address: Address) -> dict[str, Any]:
    host, port = address.hosts[0]
    return {"host": host, "port": port}


def _options(
    settings: Settings,
    address: Address,
    retry: type[Retry] | type[AsyncRetry],
    retries: int,
    what: str,
) -> dict[str, Any]:
    return {
        **address.account,
        **(address.tls or {}),
        **idle.keepalive(settings),
        "decode_responses": True,
        "encoding_errors": READ_LENIENTLY,
        "client_name": connection_name(what),
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.connect_timeout_s,
        "health_check_interval": settings.max_idle_s,
        "retry": retry(NoBackoff(), retries, supported_errors=(RedisConnectionError,)),
    }


def connection_name(what: str) -> str:
    """Return a connection's name for Redis's `CLIENT LIST`, which allows no spaces."""
    return f"crossmodal:{what}:{socket.gethostname()}".replace(" ", "_")


def sentinel_options(
    settings: Settings, address: Address, retry: type[Retry] | type[AsyncRetry] = Retry
) -> dict[str, Any]:
    """Return the options of connections to Sentinels, which share the connect timeout."""
    password = settings.sentinel_password
    patience_s = settings.connect_timeout_s / len(address.hosts)
    return {
        **({"ssl": True, **address.tls} if address.tls else {}),
        **({"password": password.get_secret_value()} if password else {}),
        "socket_connect_timeout": patience_s,
        "socket_timeout": patience_s,
        "health_check_interval": settings.max_idle_s,
        "retry": retry(NoBackoff(), 0),
    }


class _MasterPool(SentinelConnectionPool):
    """A pool that also closes its connections to the Sentinels."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


class _AsyncPool(redis.asyncio.ConnectionPool):
    """A pool that connects concurrently; redis-py's holds a lock while a connection connects.

    Behind that lock, each caller would wait for all timeouts before its own.
    """

    async def get_connection(
        self, command_name: Any = None, *keys: Any, **options: Any
    ) -> redis.asyncio.Connection:
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection  # type: ignore[no-any-return]


class _AsyncMasterPool(_AsyncPool, async_sentinel.SentinelConnectionPool):
    """A `_MasterPool` for an event loop."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def is_reachable(settings: Settings) -> bool:
    """Return whether Redis answers a PING, with timeouts of at most a second."""
    return _refusal(settings) is None


def is_loading(settings: Settings) -> bool:
    """Return whether Redis has started and is still loading its data."""
    return isinstance(_refusal(settings), BusyLoadingError)


def _refusal(settings: Settings) -> RedisError | None:
    hasty = settings.model_copy(update={"connect_timeout_s": min(1.0, settings.connect_timeout_s)})
    try:
        with connect(hasty, retries=0) as client:
            client.ping()
    except RedisError as e:
        return e
    return None


def transport_options(settings: Settings) -> dict[str, Any]:
    """Return the options of kombu's transport, the same for senders, workers and sweeps."""
    options: dict[str, Any] = {
        "visibility_timeout": settings.lease_s,
        "unacked_mutex_expire": MUTEX_S,
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.connect_timeout_s,
        "health_check_interval": max(1, int(settings.max_idle_s / 2)),  # PING on every other check
        **idle.keepalive(settings),
    }
    if prefix := celery_prefix(settings.key_prefix):
        options["global_keyprefix"] = prefix
    if address_of(settings).is_sentinel:
        options["master_name"] = settings.sentinel_master
    return options


@contextmanager
def broker_errors(settings: Settings) -> Iterator[None]:
    """Translate redis-py's errors into `BrokerUnavailable` and its subclasses."""
    try:
        yield
    except RedisError as e:
        raise translated(e, settings) from e


def translated(error: RedisError, settings: Settings) -> Exception:
    """Return redis-py's error as a `CrossmodalError`, mostly a `BrokerUnavailable`."""
    url = redacted(settings.broker_url.get_secret_value())
    if isinstance(error, OutOfMemoryError):
        return BrokerFull(
            f"Redis has used up its maxmemory: {_reason(error)}. Submit again when jobs have "
            "ended, raise it, or lower CROSSMODAL_RETENTION_S"
        )
    if isinstance(error, BusyLoadingError):
        return BrokerUnavailable(f"Redis at {url} is loading its data: try again later")
    if (wrong := _wrong_place(error, url)) is not None:
        return wrong
    if _is_lasting(error):
        lasting = BrokerUnavailable(f"Redis at {url} cannot carry out a call: {_reason(error)}")
        lasting.retryable = False
        return lasting
    if isinstance(error, ResponseError):
        return BrokerUnavailable(
            f"Redis at {url} refuses writes: {_reason(error)}. {_remedy(error)}. Jobs wait until "
            "it accepts writes again"
        )
    what = f"does not answer: {_reason(error)}"
    if isinstance(error, RedisTimeoutError):
        what = f"did not answer within {settings.connect_timeout_s:g} s"
    return BrokerUnavailable(
        f"Redis at {url} {what}. Start one with `crossmodal up`, or set CELERY_BROKER_URL"
    )


def _wrong_place(error: RedisError, url: str) -> Exception | None:
    """Return the error for a wrong URL or user; None if these are not the cause."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        return BrokerRefused(
            f"Redis at {url} refuses this user: {_reason(error)}. Correct the user and password in "
            "CELERY_BROKER_URL, or the user's rights: `crossmodal redis-acl` prints them"
        )
    if isinstance(error, CLUSTER_ERRORS) or any(said in str(error) for said in OF_CLUSTERS):
        return in_cluster_mode(url)
    if NO_DATABASE in str(error):
        return InvalidSetting(
            f"CELERY_BROKER_URL: Redis at {url} has no such database: use a lower number, such as "
            "0, or raise `databases` in its configuration"
        )
    if isinstance(error, InvalidResponse):
        return BrokerRefused(
            f"the server at {url} is not Redis ({_reason(error)}): correct the host and port in "
            "CELERY_BROKER_URL"
        )
    if (reason := _tls_failure(error)) is not None:
        return BrokerNotTrusted(
            f"no TLS connection with Redis at {url}: {reason}. Check ssl_ca_certs, ssl_certfile "
            "and the host's name in CELERY_BROKER_URL"
        )
    return None


def _remedy(error: RedisError) -> str:
    """Return the remedy for a server that answers but refuses writes."""
    said = "READONLY" if isinstance(error, ReadOnlyError) else str(error)
    found = (remedy for code, remedy in REMEDIES.items() if said.startswith(code))
    return next(found, "Check its log, its disk and its role")


def _is_lasting(error: RedisError) -> bool:
    """Return whether the call itself is at fault, so that a retry cannot help.

    An old server wraps the error of a failed script in its own.
    """
    said = str(error)
    is_fault = isinstance(error, ResponseError) and said.startswith(LASTING)
    return isinstance(error, DataError) or (is_fault and PASSING.search(said) is None)


def _reason(error: RedisError) -> str:
    """Return the reason without a full stop: the operating system's, if redis-py wraps one."""
    cause = error.__cause__ or error.__context__
    said = cause.strerror if isinstance(cause, OSError) else None
    return (said or str(error)).rstrip(". ")


def in_cluster_mode(url: str) -> InvalidSetting:
    """Return the error for a server in cluster mode."""
    return InvalidSetting(
        f"CELERY_BROKER_URL: Redis at {url} is in cluster mode, which neither Celery nor the job "
        "ledger supports: use a server with cluster mode off (replicas are fine)"
    )


def _tls_failure(error: BaseException) -> str | None:
    """Return OpenSSL's error, if it is the cause; a closed connection is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, BROKEN_OFF):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
