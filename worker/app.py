"""The Celery application by its public name: `celery -A worker.app worker`."""

from worker.celery.app import app

<<<<<<< HEAD
__all__ = ["app"]
=======
from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_revoked,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from celery.utils.log import get_multiprocessing_logger
from kombu import Queue

from crossmodal import logs, tracing
from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.garbage import settle
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import Task, is_job_id
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.server import warnings
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings, load_settings
from worker import control
from worker.broker import backend_conf, broker_conf
from worker.devices import default_socket
from worker.lease import LeaseStep
from worker.quarantine import Quarantine
from worker.task_log import keep_discreet
from worker.transport import install

log = logging.getLogger(__name__)


class Loader(AppLoader):
    """Takes nothing from the working directory, nor a project's own CELERY_CONFIG_MODULE."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        return self.import_module(module, package)

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class App(Celery):
    """A Celery application that knows the settings it was made with, and which worker it is."""

    settings: Settings
    worker: str = ""


def make_app(settings: Settings) -> App:
    """Celery as this project needs it: late acks, JSON only, no result backend unless asked."""
    # No fixups: that for Django would put the working directory on Python's path.
    app = App("crossmodal", include=["worker.tasks"], loader=Loader, fixups=())
    app.settings = settings
    app.backend_cls, of_backend = backend_conf(settings)
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
        task_ignore_result=settings.result_backend is None,
        # Celery's events cost as much as the rest of the main process: Flower asks for them.
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        **broker_conf(settings),
        **of_backend,
    )
    quarantine = Quarantine(settings, queues)
    install(settings, quarantine.set_aside)
    control.restrict()
    app.steps["consumer"].add(LeaseStep)
    return app


@celeryd_init.connect
def _begin(sender: str, instance: Any, **_: Any) -> None:
    """Before Celery says anything; with JSON, its banner would be no line of the log."""
    app.worker = sender
    logs.configure(settings, process="worker", worker=sender)
    instance.quiet = instance.quiet or logs.is_json(settings)


@setup_logging.connect
def _observe(loglevel: int, logfile: str | None, **_: Any) -> None:
    """Have Celery's lines look like ours; its options go before our settings. Before any fork."""
    logs.configure(settings, level=loglevel, file=logfile, process="worker", worker=app.worker)
    pool = get_multiprocessing_logger()
    pool.propagate = True
    pool.setLevel(logging.ERROR)
    keep_discreet()
    tracing.prepare()


@worker_process_init.connect
def _begin_child(**_: Any) -> None:
    tracing.configure("worker")


@worker_process_shutdown.connect
def _end_child(**_: Any) -> None:
    tracing.flush()


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    """Tell the supervisor that jobs are taken, and say at once if no model host is there."""
    settle()
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
            "python -P -m worker.host --socket %s --device cpu",
            path, path,
        )  # fmt: skip


@worker_shutdown.connect
def _leave(sender: Any, **_: Any) -> None:
    """Take the worker off the list of those that consume."""
    with suppress(BrokerUnavailable):
        Runner(settings).run(Workers(settings).leave(sender.hostname))


@task_revoked.connect
def _cancel(request: Any, **_: Any) -> None:
    """What Celery is told to revoke, as by Flower, is canceled for all: its own list forgets."""
    if is_job_id(request.id):
        with suppress(JobNotFound):
            Runner(settings).run(JobLedger(settings).cancel(request.id))


settings = load_settings()
app = make_app(settings)
>>>>>>> background
