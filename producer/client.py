"""The blocking client: submit jobs, follow them, read their results."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from crossmodal.errors import InvalidSetting
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Call
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.record import ItemResult, JobEvent, Progress
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.settings import Settings, overridden
from crossmodal.storage import Storage
from crossmodal.unknown import shown
from producer.batches.bulk import Batch
from producer.calls import ClientCalls
from producer.handle import Handle, JobHandle, ids_of
from producer.notebook import with_pictures
from producer.operators import Keys, Letters, Webhooks
from producer.twins import as_twin, asked, waited
from producer.waiting import Wait

P = ParamSpec("P")


def submitted(
    method: Callable[Concatenate[Any, P], Call[str]],
) -> Callable[Concatenate[Any, P], JobHandle]:
    """Return a method that runs the call and wraps the job id it returns in a handle."""

    def twin(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return JobHandle(self, self.run(asked(self, method, *args, **kwargs)))

    return as_twin(twin, method, JobHandle)


def iterated(
    method: Callable[Concatenate[Any, P], Batch],
) -> Callable[Concatenate[Any, P], Iterator[ItemResult]]:
    """Return a method that advances its batch as the caller iterates over the results."""

    def twin(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ItemResult]:
        return _results(self, asked(self, method, *args, **kwargs))

    return as_twin(twin, method, Iterator[ItemResult])


class Client:
    """A client of the Redis and the object store that the settings name. Thread-safe.

    Settings come from `settings` or, without it, from the environment; keyword arguments override
    single ones. Raises `InvalidSetting` for an unknown or invalid one. A call to Redis times out
    after `connect_timeout_s`, one to the object store after `storage_timeout_s`; a wait for a
    job takes as long as its own `timeout_s`.
    """

    _what = "client"  # names its connections in Redis

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        if not isinstance(settings, Settings | None):
            raise InvalidSetting(
                f"the settings are {shown(settings)}: give a Settings, or single ones by name, as "
                "broker_url='redis://…'"
            )
        self.settings = overridden(settings, **overrides)
        self.calls = ClientCalls(self.settings)
        self.runner = Runner(self.settings, what=self._what)
        self.run = self.runner.run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.runner.close()

    txt2img = submitted(ClientCalls.txt2img)
    img2txt = submitted(ClientCalls.img2txt)
    submit = submitted(ClientCalls.submit)
    retry = submitted(ClientCalls.retry)
    delete = waited(ClientCalls.delete)
    upload = waited(ClientCalls.upload)

    map_txt2img = iterated(ClientCalls.map_txt2img)
    map_img2txt = iterated(ClientCalls.map_img2txt)
    map_items = iterated(ClientCalls.map_items)
    batch = waited(ClientCalls.batch)
    cancel_batch = waited(ClientCalls.cancel_batch)

    job = submitted(ClientCalls.job)
    record = waited(ClientCalls.record)
    history = waited(ClientCalls.history)
    status = waited(ClientCalls.status)
    cancel = waited(ClientCalls.cancel)
    cancel_all = waited(ClientCalls.cancel_all)
    pause = waited(ClientCalls.pause)
    resume = waited(ClientCalls.resume)
    models = waited(ClientCalls.models)
    model = waited(ClientCalls.model)
    queue = waited(ClientCalls.queue)
    queues = waited(ClientCalls.queues)
    workers = waited(ClientCalls.workers)
    jobs = waited(ClientCalls.jobs)
    _ended = waited(ClientCalls.ended)

    def as_completed(
        self, jobs: Iterable[Handle | str], timeout_s: float | None = None
    ) -> Iterator[JobHandle]:
        """Yield each job as soon as it has ended, in whatever state.

        Raises `JobNotFound`, and `ResultTimeout` when one has not ended in time.
        """
        return self._as_they_end(self.run(self.calls.wait(ids_of(jobs), timeout_s)))

    def _as_they_end(self, wait: Wait) -> Iterator[JobHandle]:
        while wait:
            for job_id in self.run(self.calls.more_ended(wait)):
                yield JobHandle(self, job_id)

    def events(self, job: Handle | str) -> Iterator[JobEvent | Progress]:
        """Yield a job's past events, then new ones until it has ended.

        A `JobEvent` for each transition and, while it runs, `Progress` from models that report
        their steps. Raises `JobNotFound`.
        """
        events = self.calls.events_of(job)
        while not events.is_done:
            yield from self.run(self.calls.more_events(events))

    read = waited(ClientCalls.read)
    sign = waited(ClientCalls.sign)

    @property
    def webhooks(self) -> Webhooks:
        """Webhook deliveries, pending and past."""
        return Webhooks(Deliveries(self.settings), self.runner)

    @property
    def keys(self) -> Keys:
        """The API keys of the HTTP gateway."""
        return Keys(ApiKeys(self.settings), self.runner)

    @property
    def dead_letters(self) -> Letters:
        """Dead letters, for operators."""
        return Letters(DeadLetters(self.settings, self.ledger), self.runner)

    @property
    def ledger(self) -> JobLedger:
        """The ledger, whose calls `run` executes."""
        return self.calls.ledger

    @property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        return self.calls.storage

    @property
    def redis(self) -> Any:
        """The redis-py client that this client uses."""
        return self.runner.redis


class CommandClient(Client):
    """The client of the command line."""

    _what = "cli"


def _results(client: Client, batch: Batch) -> Iterator[ItemResult]:
    while not batch.is_done:
        for found in client.run(batch.turn()):
            yield with_pictures(found, client.read)
