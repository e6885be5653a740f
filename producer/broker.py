"""The producer's look at Celery: who takes jobs from which queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from celery.exceptions import OperationalError as CeleryError
from kombu.exceptions import OperationalError

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import sweep_options
from crossmodal.settings import Settings, redacted

INSPECT_TIMEOUT_S = 1.0


class Broker:
    """Asks the workers. Messages do not come this way: the ledger sends them with their records."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = Celery("crossmodal-producer", broker=settings.broker_url.get_secret_value())
        self._app.conf.update(
            broker_connection_timeout=settings.connect_timeout_s,
            broker_transport_options={
                "socket_connect_timeout": settings.connect_timeout_s,
                "socket_timeout": settings.connect_timeout_s,
                "retry_on_timeout": False,
                "max_retries": 0,  # the caller decides whether to try again
                **sweep_options(settings),  # `inspect` has kombu sweep as well
            },
        )

    def workers(self) -> dict[str, list[str]]:
        """Names of the workers that answer within a second, each with the queues it serves."""
        with self._errors():
            replies = self._app.control.inspect(timeout=INSPECT_TIMEOUT_S).active_queues() or {}
        return {
            name: [queue["name"] for queue in queues] for name, queues in sorted(replies.items())
        }

    def close(self) -> None:
        self._app.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, CeleryError, OSError) as e:
            url = redacted(self._settings.broker_url.get_secret_value())
            raise BrokerUnavailable(f"the queue at {url} cannot be reached: {e}") from e
