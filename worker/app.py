"""The Celery application that workers and Flower run: `celery -A worker.app worker`."""

import logging
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.signals import task_revoked, worker_ready
from kombu import Queue

from crossmodal.errors import JobNotFound
from crossmodal.jobs.connection import broker_errors, connect, sweep_options
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import Task, is_job_id
from crossmodal.jobs.server import warnings
from crossmodal.settings import Settings, load_settings
from worker.devices import default_socket
from worker.lease import LeaseStep
from worker.quarantine import Quarantine
from worker.transport import install

log = logging.getLogger(__name__)


class App(Celery):
    """A Celery application that knows the settings it was made with."""

    settings: Settings


def make_app(settings: Settings) -> App:
    """Celery as this project needs it: late acks, JSON only, no result backend unless asked."""
    backend = settings.result_backend
    app = App(
        "crossmodal",
        broker=settings.broker_url.get_secret_value(),
        backend=backend.get_secret_value() if backend else None,
        include=["worker.tasks"],
    )
    app.settings = settings
    queues = [task.queue for task in Task]
    if settings.plain_queue:
        queues.append(settings.plain_queue)
    app.conf.update(
        task_queues=[Queue(name) for name in queues],
        task_routes={task.celery_name: {"queue": task.queue} for task in Task},
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # A message leaves Redis only when its job has ended, and comes back when the process
        # that had it dies; the ledger counts attempts, so it cannot come back for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=backend is None,
        # Celery's events cost as much as the rest of the main process: Flower asks for them.
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            **sweep_options(settings),
            "socket_connect_timeout": settings.connect_timeout_s,
            "socket_keepalive": True,
        },
    )
    quarantine = Quarantine(settings, queues)
    install(queues, settings.max_message_bytes, quarantine.set_aside)
    app.steps["consumer"].add(LeaseStep)
    return app


@worker_ready.connect
def _announce(**_: Any) -> None:
    """Tell the supervisor that jobs are taken, and say at once if no model host is there."""
    if settings.ready_file is not None:
        settings.ready_file.touch()
    with broker_errors(settings), connect(settings) as redis:
        for problem in warnings(redis):
            log.warning("jobs can be lost: %s", problem)
    path = settings.host_socket or default_socket("cpu")
    if not path.is_socket():
        log.warning(
            "no model host is at %s: jobs will wait for one. `crossmodal worker` starts a host "
            "and a worker together; to start a host alone: "
            "python -m worker.host --socket %s --device cpu",
            path, path,
        )  # fmt: skip


@task_revoked.connect
def _cancel(request: Any, **_: Any) -> None:
    """What Celery is told to revoke, as by Flower, is canceled for all: its own list forgets."""
    if is_job_id(request.id):
        with suppress(JobNotFound):
            JobLedger(settings).cancel(request.id)


settings = load_settings()
app = make_app(settings)
