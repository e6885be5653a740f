"""Makes a Celery worker consume the queues of the models on its device, and no others."""

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
    """The Celery step that adds and cancels queues, in the hub's thread, as models come and go.

    A worker without a supervisor consumes the queues of Celery's configuration.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.residents = None
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the synchronization; called again after each lost connection."""
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
    from worker.hosts import Hosts  # not at import: Flower lacks NumPy

    app, pool = consumer.app, consumer.pool
    models = serving.read_models()
    runner = AsyncRunner(settings, what="worker")
    for model in models:
        for queue in model.queues:
            pool.lanes.assign(queue, model.name)
    app.hosts = hosts = Hosts.of_models(settings, models)

    def in_hand(model: str) -> int:
        """Return how many jobs of a model are in hand, also those from the plain queue."""
        lanes: Lanes = pool.lanes
        return max(lanes.in_hand(model), hosts.running(model))

    residents = Residents(settings, serving, consumer.hostname, in_hand, runner)
    hosts.open(residents.run)
    pool.loop.at_end(runner.close)
    pool.loop.begin(residents.keep(lambda: hosts.open(residents.run), drains))
    return residents


def drains() -> bool:
    """Return whether this worker only finishes what it has in hand."""
    return state.should_stop is not None


def sync(consumer: Any) -> None:
    """Consume exactly the queues whose jobs are taken now."""
    residents: Residents = consumer.residents
    plain = consumer.app.settings.plain_queue
    for model in residents.models:
        batches = [kind.max_batch for kind in model.kinds.values() if kind.max_batch is not None]
        if batches:  # one batch on the device, one ready for it
            consumer.pool.lanes.limit_model(model.name, 2 * max(batches))
    listens = {queue.name for queue in consumer.task_consumer.queues} - {plain}
    for name in residents.taken - listens:
        consumer.add_task_queue(name)
    for name in listens - residents.taken:
        consumer.cancel_task_queue(name)
