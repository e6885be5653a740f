"""Celery's settings for the broker and the result backend.

The environment has the URLs too, and takes precedence over an application's settings, except for
the keys that are set here. None of these shows a password: a worker sends its configuration and
connection details to any remote control client, and Flower shows them.
"""

from collections.abc import Callable
from typing import Any

import kombu
from celery.app.amqp import AMQP

from crossmodal.jobs.address import parse_address
from crossmodal.jobs.connection import (
    address_of,
    connection_name,
    sentinel_options,
    transport_options,
)
from crossmodal.jobs.names import celery_prefix
from crossmodal.settings import Settings
from worker.notices import Pace

REDIS_SCHEMES = ("redis://", "rediss://", "sentinel://")
STEP_S = 0.25
MAX_WAIT_S = 1.0  # max wait between two tries of a broker that is away; kombu's is 30 s


class Connection(kombu.Connection):
    """A connection that retries often, so that a worker is back soon after its broker.

    Errors that repeat are not reported each time.
    """

    def ensure_connection(
        self,
        errback: Callable[..., Any] | None = None,
        max_retries: int | None = None,
        interval_start: float = STEP_S,
        interval_step: float = STEP_S,
        interval_max: float = MAX_WAIT_S - STEP_S,  # kombu adds `interval_start`
        **more: Any,
    ) -> "Connection":
        pace = (interval_start, interval_step, interval_max)
        super().ensure_connection(errback and _now_and_then(errback), max_retries, *pace, **more)
        return self


def _now_and_then(errback: Callable[..., Any]) -> Callable[..., None]:
    """Return an errback that passes an error on at most twice a minute."""
    pace = Pace()

    def told(error: Exception, wait_s: float) -> None:
        if pace.allows():
            errback(error, wait_s)

    return told


class Messages(AMQP):
    """Celery's messaging over this `Connection`."""

    Connection = Connection


def broker_conf(settings: Settings) -> dict[str, Any]:
    """Return Celery's broker settings."""
    address = address_of(settings)
    return {
        "broker_url": address.public_url,
        "broker_read_url": address.public_url,
        "broker_write_url": address.public_url,
        "broker_user": address.username,
        "broker_password": address.password,
        "broker_vhost": str(address.db),
        "broker_connection_max_retries": None,  # a long outage must not end the worker
        "broker_use_ssl": dict(address.tls) if address.tls else False,
        "broker_transport_options": transport_options(settings)
        | {"client_name": connection_name("worker")},
    }


def backend_conf(settings: Settings) -> tuple[str | None, dict[str, Any]]:
    """Return the URL of the result backend and its Celery settings; no URL if there is none."""
    if settings.result_backend is None:
        return None, {}
    url = settings.result_backend.get_secret_value()
    options: dict[str, Any] = {}
    if prefix := celery_prefix(settings.key_prefix):
        options["global_keyprefix"] = prefix
    conf: dict[str, Any] = {"result_backend_transport_options": options}
    if not url.startswith(REDIS_SCHEMES):
        return url, conf
    address = parse_address(url, "CELERY_RESULT_BACKEND")
    # Celery stores results in the thread that consumes messages, which must not block for long.
    options["retry_policy"] = {"max_retries": 1, "interval_start": 0, "interval_max": 0.1}
    conf |= {
        "redis_socket_connect_timeout": settings.connect_timeout_s,
        "redis_socket_timeout": settings.connect_timeout_s,
        "redis_backend_health_check_interval": settings.max_idle_s,
        "redis_socket_keepalive": True,
    }
    if address.is_sentinel:
        asked = sentinel_options(settings, address)
        del asked["retry"]  # not serializable, and Celery shows its configuration
        options |= {"master_name": settings.sentinel_master, "sentinel_kwargs": asked}
    if address.tls:
        conf["redis_backend_use_ssl"] = dict(address.tls)
    return address.private_url, conf
