"""The client: submit jobs, follow them, read what they made."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from crossmodal.errors import InvalidSetting
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Call
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import check_batch_id, new_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.record import ItemResult
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.settings import Settings, overridden
from crossmodal.storage import Storage
from producer.bulk import Batch, Request
from producer.calls import ClientCalls
from producer.checks import check_text, shown
from producer.handle import Handle, JobHandle, ids_of
from producer.items import checked_items, picture_items, prompt_items
from producer.operators import Keys, Letters, Webhooks
from producer.pictures import Picture
from producer.twins import as_twin, asked, waited
from producer.waiting import Wait

P = ParamSpec("P")


def submitted(
    method: Callable[Concatenate[Any, P], Call[str]],
) -> Callable[Concatenate[Any, P], JobHandle]:
    """A method that makes a handle of the id that its call comes to."""

    def twin(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return JobHandle(self, self.run(asked(self, method, *args, **kwargs)))

    return as_twin(twin, method, JobHandle)


class Client:
    """Submits jobs to the queue and store that the environment names. Safe to share by threads.

    Keyword arguments override single settings, of the environment or of those that are given;
    `InvalidSetting` is raised for what is none. A Redis that does not answer is given up
    after `connect_timeout_s`, an object store after `storage_timeout_s`; a wait takes as
    long as its own `timeout_s`.
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
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        self.runner.close()

    txt2img = submitted(ClientCalls.txt2img)
    img2txt = submitted(ClientCalls.img2txt)
    submit = submitted(ClientCalls.submit)
    retry = submitted(ClientCalls.retry)
    delete = waited(ClientCalls.delete)
    upload = waited(ClientCalls.upload)

    # -- many at once -------------------------------------------------------------------

    def map_txt2img(
        self,
        prompts: Iterable[str],
        *,
        count: int = 1,
        seed: int | None = None,
        temperature: float = 1.0,
        batch_id: str | None = None,
    ) -> Iterator[ItemResult]:
        """Draw every prompt; yields each result as it comes, `index` says of which prompt.

        Picture j of prompt i is drawn with `seed` + i * `count` + j, or with seeds that follow
        from `batch_id`: so with the same id, a rerun goes on where the last run stopped. A
        prompt that fails has a `failure`; the others do not mind. Raises `InvalidParams`,
        `IdempotencyConflict` for an id that other prompts had, `BrokerUnavailable`,
        `StorageUnavailable`.
        """
        name = _batch_name(batch_id)
        options = {"count": count, "seed": seed, "temperature": temperature}
        return self.map_items(prompt_items(prompts, name, options), batch_id=name)

    def map_img2txt(
        self,
        images: Iterable[Picture],
        *,
        count: int = 1,
        beam_width: int = 4,
        max_words: int = 40,
        batch_id: str | None = None,
    ) -> Iterator[ItemResult]:
        """Caption every picture; yields each result as it comes, `index` says of which picture.

        Pictures are read as they are sent. See `map_txt2img` for the rest.
        """
        options = {"count": count, "beam_width": beam_width, "max_words": max_words}
        items = picture_items(images, options, self.settings.max_image_bytes)
        return self.map_items(items, batch_id=batch_id)

    def map_items(
        self, items: Iterable[Request | ItemResult], *,
        batch_id: str | None = None, origin: Origin = NOBODY,
    ) -> Iterator[ItemResult]:  # fmt: skip
        """`map_txt2img` and `map_img2txt` for items of any kind, with params of their own."""
        batch = Batch(self.runner, self.calls, _batch_name(batch_id), origin)
        return batch.results(checked_items(items))

    batch = waited(ClientCalls.batch)
    cancel_batch = waited(ClientCalls.cancel_batch)

    # -- following ----------------------------------------------------------------------

    job = submitted(ClientCalls.job)
    record = waited(ClientCalls.record)
    history = waited(ClientCalls.history)
    status = waited(ClientCalls.status)
    cancel = waited(ClientCalls.cancel)
    queue = waited(ClientCalls.queue)
    queues = waited(ClientCalls.queues)
    workers = waited(ClientCalls.workers)
    jobs = waited(ClientCalls.jobs)
    _ended = waited(ClientCalls.ended)

    def as_completed(
        self, jobs: Iterable[Handle | str], timeout_s: float | None = None
    ) -> Iterator[JobHandle]:
        """The jobs, each as soon as it has ended, however it ended.

        Raises `JobNotFound`, and `ResultTimeout` when one has not ended in time.
        """
        return self._as_they_end(self.run(self.calls.wait(ids_of(jobs), timeout_s)))

    def _as_they_end(self, wait: Wait) -> Iterator[JobHandle]:
        while wait:
            for job_id in self.run(self.calls.more_ended(wait)):
                yield JobHandle(self, job_id)

    # -- reading, and what operators do -------------------------------------------------

    read = waited(ClientCalls.read)
    sign = waited(ClientCalls.sign)

    @property
    def webhooks(self) -> Webhooks:
        """What webhooks are told, and were."""
        return Webhooks(Deliveries(self.settings), self.runner)

    @property
    def keys(self) -> Keys:
        """Who may use the HTTP gateway."""
        return Keys(ApiKeys(self.settings), self.runner)

    @property
    def dead_letters(self) -> Letters:
        """What was given up, for operators."""
        return Letters(DeadLetters(self.settings, self.ledger), self.runner)

    @property
    def ledger(self) -> JobLedger:
        """Calls to the records of jobs, for `run`."""
        return self.calls.ledger

    @property
    def storage(self) -> Storage:
        """The object store that the settings name; opened on first use."""
        return self.calls.storage

    @property
    def redis(self) -> Any:
        """redis-py's client, whose connections this one has."""
        return self.runner.redis


class CommandClient(Client):
    """A client of the command line."""

    _what = "cli"


def _batch_name(batch_id: str | None) -> str:
    return new_job_id() if batch_id is None else check_batch_id(check_text("batch_id", batch_id))
