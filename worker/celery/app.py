"""The Celery application that workers and Flower run; its public name is `worker.app`."""

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_revoked,
    worker_init,
    worker_ready,
    worker_shutdown,
)
from kombu import Queue
from redis.exceptions import RedisError

from crossmodal import logs, tracing
from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.garbage import freeze_gc
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import is_job_id
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.server import warnings
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import tasks
from crossmodal.settings import Settings, load_settings
from worker.celery import control
from worker.celery.broker import Messages, backend_conf, broker_conf
from worker.celery.lanes import Lanes
from worker.celery.lease import LeaseStep
from worker.celery.models import ModelsStep
from worker.celery.pool import CoroutinePool
from worker.celery.quarantine import Quarantine
from worker.celery.task_log import keep_discreet
from worker.celery.transport import install
from worker.devices import default_socket
from worker.serving import Serving

if TYPE_CHECKING:
    from worker.hosts import Hosts

log = logging.getLogger(__name__)

BULK = 4  # bulk messages in hand if the setting is unset


class Loader(AppLoader):
    """A loader that reads neither the working directory nor CELERY_CONFIG_MODULE."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        return self.import_module(module, package)

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class App(Celery):
    """A Celery application with its settings, its lanes and the name of its worker."""

    amqp_cls = Messages
    settings: Settings
    lanes: Lanes
    runner: Runner
    worker: str = ""
    hosts: "Hosts | None" = None
    """The model hosts of a supervised worker; None without a supervisor."""


def make_app(settings: Settings, include: tuple[str, ...] = ("worker.celery.tasks",)) -> App:
    """Return the Celery application: late acks, JSON only, no result backend unless configured."""
    # No fixups: Celery's for Django would put the working directory on Python's path.
    app = App("crossmodal", include=include, loader=Loader, fixups=())
    app.settings = settings
    app.lanes = Lanes(bulk=settings.bulk_concurrency or BULK)
    app.runner = Runner(settings, what="worker")
    app.backend_cls, of_backend = backend_conf(settings)
    queues = _queues(settings)
    app.conf.update(
        task_queues=[Queue(name) for name in queues],
        task_routes={task.celery_name: {"queue": str(task)} for task in tasks()},
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_pool=CoroutinePool,
        # A message stays in Redis until its job has ended, and is redelivered when its process
        # dies. The ledger counts attempts, so redeliveries are bounded.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=settings.result_backend is None,
        # Events cost as much as the rest of a worker; Flower enables them on demand.
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_channel_error_retry=True,  # Redis may accept later what it refuses now
        **broker_conf(settings),
        **of_backend,
    )
    quarantine = Quarantine(settings, app.runner, queues)
    install(settings, quarantine.set_aside, app.lanes)
    control.restrict()
    app.steps["consumer"].add(ModelsStep)
    app.steps["consumer"].add(LeaseStep)
    return app


def _queues(settings: Settings) -> list[str]:
    """Return the queues that a worker may consume: by kind, by model name, and the plain one."""
    named: list[str] = []
    if settings.models_file is not None:
        models = Serving.of_file(settings.models_file).read_models()
        named = [queue for model in models for queue in model.queues]
    plain = [settings.plain_queue] if settings.plain_queue else []
    return [*dict.fromkeys([*map(str, tasks()), *named]), *plain]


@celeryd_init.connect
def _begin(sender: str, instance: Any, **_: Any) -> None:
    """Configure the log before Celery prints anything: its banner would break a JSON log."""
    app.worker = sender
    logs.configure(settings, process="worker", worker=sender)
    instance.quiet = instance.quiet or logs.is_json(settings)


@setup_logging.connect
def _observe(loglevel: int, logfile: str | None, **_: Any) -> None:
    """Configure Celery's log; its command-line options take precedence over the settings."""
    logs.configure(settings, level=loglevel, file=logfile, process="worker", worker=app.worker)
    keep_discreet()
    tracing.configure("worker")


@worker_init.connect
def _refuse_other_pools(sender: Any, **_: Any) -> None:
    """Exit if the worker was started with another pool, which cannot run coroutines."""
    if sender.pool_cls is not CoroutinePool:
        raise SystemExit("jobs run in a pool of their own: start the worker without --pool")


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    """Signal readiness to the supervisor; warn if jobs can be lost or no model host runs."""
    freeze_gc()
    if settings.ready_file is not None:
        settings.ready_file.touch()
    try:
        for problem in warnings(app.runner.redis):
            log.warning("jobs can be lost: %s", problem)
    except RedisError as e:
        log.warning("cannot find out whether Redis persists its data: %s", e)
    path = settings.host_socket or default_socket("cpu")
    if settings.models_file is None and not path.is_socket():
        log.warning(
            "no model host is at %s: jobs will wait for one. `crossmodal worker` starts a host "
            "and a worker together; to start a host alone: "
            "python -P -m worker.host --socket %s --device cpu",
            path,
            path,
        )


@worker_shutdown.connect
def _leave(sender: Any, **_: Any) -> None:
    """Remove the worker from the list of consuming workers."""
    with suppress(BrokerUnavailable):
        app.runner.run(Workers(settings).leave(sender.hostname))
    app.runner.close()
    tracing.flush()


@task_revoked.connect
def _cancel(request: Any, **_: Any) -> None:
    """Cancel a revoked job in the ledger, too: Celery's own list of revoked ids does not last."""
    if is_job_id(request.id):
        with suppress(JobNotFound):
            app.runner.run(JobLedger(settings).cancel(request.id))


settings = load_settings()
app = make_app(settings)
