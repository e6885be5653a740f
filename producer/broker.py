"""The producer's side of Celery: messages out, and a look at who takes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError as CeleryError
from kombu.exceptions import OperationalError

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import sweep_options
from crossmodal.jobs.names import RECORDED_HEADER, Task
from crossmodal.settings import Settings, redacted

INSPECT_TIMEOUT_S = 1.0


class Broker:
    """Sends one Celery message a job, and keeps a connection for the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = Celery("crossmodal-producer", broker=settings.broker_url.get_secret_value())
        self._app.conf.update(
            task_serializer="json",
            task_ignore_result=True,
            broker_connection_timeout=settings.connect_timeout_s,
            broker_transport_options={
                "socket_connect_timeout": settings.connect_timeout_s,
                "socket_timeout": settings.connect_timeout_s,
                "retry_on_timeout": False,
                "max_retries": 0,  # the caller decides whether to try again
                **sweep_options(settings),  # `inspect` has kombu sweep as well
            },
        )

    def publish(self, task: Task, job_id: str, params: dict[str, Any]) -> None:
        """Send the message of a job; its id is the Celery task's id."""
        with self._errors():
            self._app.send_task(
                task.celery_name,
                kwargs=params,
                task_id=job_id,
                queue=task.queue,
                retry=False,
                headers={RECORDED_HEADER: True},
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
