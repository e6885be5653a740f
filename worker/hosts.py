"""The model hosts of a worker's device, by the queues whose jobs they run."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task, tasks
from crossmodal.settings import Settings
from worker.devices import default_socket
from worker.host.client import HostClient
from worker.serving import ServedModel, Serving


class NotServed(Exception):
    """The model of a queue is not loaded here, or is about to be unloaded."""


class Hosts:
    """Connections to model hosts, opened on first use; one set per event loop.

    Without `queues`, as in a worker without a supervisor, the only host runs all jobs.
    """

    def __init__(
        self,
        hosts: Mapping[str, HostClient],
        queues: Mapping[str, str] | None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Map model names to `hosts`, and `queues` and `aliases` to model names."""
        self._hosts = hosts
        self._queues = queues
        self._aliases = aliases or {}
        self._running: Counter[str] = Counter()
        self._open: frozenset[str] | None = None

    @classmethod
    def of_settings(cls, settings: Settings) -> Self:
        """Return the hosts of the models that the settings name."""
        if settings.models_file is None:
            return cls.only(_client(settings, settings.host_socket or default_socket("cpu")))
        return cls.of_models(settings, Serving.of_file(settings.models_file).read_models())

    @classmethod
    def of_models(cls, settings: Settings, models: Sequence[ServedModel]) -> Self:
        """Return one host for each model."""
        clients = {model.name: _client(settings, model.socket) for model in models}
        queues = {
            queue: model.name
            for model in models
            for queue in (*model.queues, *map(str, queues_by_name(model)))
        }
        aliases = {alias: model.name for model in models for alias in model.info.aliases}
        return cls(clients, queues, aliases)

    @classmethod
    def only(cls, host: HostClient) -> Self:
        """Return a single host that runs all jobs."""
        return cls({"": host}, None)

    def open(self, queues: Iterable[str]) -> None:
        """Set the queues whose jobs are run; until then, those of all are."""
        self._open = frozenset(queues)

    def serves(self, queue: Queue) -> bool:
        """Return whether a job of this queue is to be run here."""
        name = str(queue)
        if self._queues is not None and name not in self._queues:
            return False
        return self._open is None or name in self._open

    def of(self, queue: Queue) -> HostClient:
        """Return the host that runs a queue's jobs. Raises `NotServed`."""
        if self._queues is None:
            return next(iter(self._hosts.values()))
        if (model := self._queues.get(str(queue))) is None:
            raise NotServed(f"this worker serves no model for the queue {queue}")
        return self._hosts[model]

    def runs(self, task: Task, model: str, host: HostClient) -> bool:
        """Return whether `host` is that of a model, given by name or alias."""
        if self._queues is None:
            return True
        name = self._aliases.get(model, model)
        return self._hosts.get(self._queues.get(str(Queue(task, name)), "")) is host

    @contextmanager
    def busy(self, queue: Queue) -> Iterator[None]:
        """Count a job of this queue as running; its message may have come through another."""
        model = (self._queues or {}).get(str(queue), "")
        self._running[model] += 1
        try:
            yield
        finally:
            self._running[model] -= 1

    def running(self, model: str) -> int:
        """Return how many jobs of a model are running."""
        return self._running[model]

    async def close(self) -> None:
        for host in self._hosts.values():
            await host.close()


def queues_by_name(model: ServedModel) -> list[Queue]:
    """Return the queues named after the model, whether or not jobs wait in them."""
    return [Queue(task, model.name) for task in tasks() if task.kind.name in model.info.kinds]


def _client(settings: Settings, socket: Path) -> HostClient:
    return HostClient(socket, settings.host_wait_s, settings.inference_timeout_s)
