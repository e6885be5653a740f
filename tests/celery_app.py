"""The project's Celery app in the process of the tests, which also send as plain Celery does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import transport as kombu_transport
from kombu.transport import TRANSPORT_ALIASES

from crossmodal.settings import Settings


@contextmanager
def as_before() -> Iterator[None]:
    """Restore kombu's transports for URLs after the block."""
    aliases, found = dict(TRANSPORT_ALIASES), dict(kombu_transport._transport_cache)
    try:
        yield
    finally:
        TRANSPORT_ALIASES.update(aliases)
        kombu_transport._transport_cache.clear()
        kombu_transport._transport_cache.update(found)


@contextmanager
def celery_app(settings: Settings) -> Iterator[Any]:
    """Yield the app that workers and Flower have with these settings."""
    with as_before():
        from worker.celery.app import make_app

        with make_app(settings) as app:
            yield app
            consumer = getattr(app.backend, "result_consumer", None)
            if consumer is not None:
                consumer.stop()
                consumer._pubsub = None  # else a result finalized later would reconnect it
                app.backend.client.connection_pool.disconnect()
