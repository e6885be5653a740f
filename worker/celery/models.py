"""Has a Celery worker take the jobs of the models that its device has loaded, and of no others."""

from typing import Any

from celery import bootsteps
from celery.worker import state

from crossmodal.jobs.runners import AsyncRunner
from crossmodal.settings import Settings
from worker.celery.lanes import Lanes
from worker.residents import Residents
from worker.serving import Serving

SYNC_S = 0.5


class ModelsStep(bootsteps.StartStopStep):
    """Adds and cancels queues, in the hub's thread, as the jobs' loop says.

    A worker that nobody supervises takes from the queues that it was told, as Celery has it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.residents = None
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Called again after each lost connection."""
        settings: Settings = consumer.app.settings
        if settings.models_file is None:
            return
        if consumer.residents is None:
            consumer.residents = _begin(settings, Serving.of_file(settings.models_file), consumer)
        sync(consumer)
        self._timer = consumer.timer.call_repeatedly(SYNC_S, sync, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _begin(settings: Settings, serving: Serving, consumer: Any) -> Residents:
    from worker.hosts import Hosts  # not with this module, for Flower lacks NumPy

    app, pool = consumer.app, consumer.pool
    models = serving.read_models()
    runner = AsyncRunner(settings, what="worker")
    for model in models:
        for queue in model.queues:
            pool.lanes.assign(queue, model.name)
    app.hosts = hosts = Hosts.of_models(settings, models)

    def in_hand(model: str) -> int:
        """Its messages, and what came otherwise, as in those of plain Celery."""
        lanes: Lanes = pool.lanes
        return max(lanes.in_hand(model), hosts.running(model))

    residents = Residents(settings, serving, consumer.hostname, in_hand, runner)
    hosts.open(residents.run)
    pool.loop.at_end(runner.close)
    pool.loop.begin(residents.keep(lambda: hosts.open(residents.run), drains))
    return residents


def drains() -> bool:
    """Whether this worker only finishes what it has."""
    return state.should_stop is not None


def sync(consumer: Any) -> None:
    """Listen to the queues whose jobs are taken now, and to no others."""
    residents: Residents = consumer.residents
    plain = consumer.app.settings.plain_queue
    for model in residents.models:
        batches = [kind.max_batch for kind in model.kinds.values() if kind.max_batch is not None]
        if batches:  # one is on the device, and one is ready for it
            consumer.pool.lanes.limit_model(model.name, 2 * max(batches))
    listens = {queue.name for queue in consumer.task_consumer.queues} - {plain}
    for name in residents.taken - listens:
        consumer.add_task_queue(name)
    for name in listens - residents.taken:
        consumer.cancel_task_queue(name)
