"""Fake clients that run jobs in this process, for the tests of an application."""

from typing import Any

from crossmodal.errors import CrossmodalError, InvalidParams
from crossmodal.jobs.batches import Batches
from crossmodal.jobs.calls import Blocking, Steps, call
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.models import FRESH_S, KnownModels
from crossmodal.jobs.names import job_key, paused_key
from crossmodal.jobs.record import QueueStatus, WorkerInfo
from crossmodal.jobs.submission import Submission
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import tasks
from crossmodal.settings import Settings
from crossmodal.unknown import shown
from producer.aio import AsyncClient
from producer.calls import ClientCalls
from producer.checks import check_count
from producer.client import Client
from producer.fake.redis import AsyncFakeRunner, FakeRedis, FakeRunner, missing
from producer.fake.scripts import FUNCTIONS
from producer.fake.worker import NAME, Describe, Draw, FakeWorker, plain_captions, plain_pictures
from producer.operators import Keys, Letters, Webhooks

NOWHERE = {"broker_url": "redis://fake.invalid:6379/0", "storage_url": "memory:///"}


class FakeClient(Client):
    """A `Client` without Redis, torch or Celery, whose jobs run as they are submitted.

    The code of `Client` itself checks params and pictures, fixes seeds, and keeps idempotency keys
    and states. `draw` makes the PNG files of a txt2img job, `describe` the captions of an img2txt
    job; a `CrossmodalError` that they raise is the job's failure. While `held`, jobs wait in the
    queue until `work` is called. There are no retries, webhooks or expiry of records.
    """

    calls: "FakeCalls"
    runner: FakeRunner

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        draw: Draw = plain_pictures,
        describe: Describe = plain_captions,
        held: bool = False,
        **overrides: Any,
    ) -> None:
        super().__init__(settings, **overrides | NOWHERE)
        self.held = held
        self.runner = FakeRunner(self.settings, FakeRedis(FUNCTIONS))
        self.run = self.runner.run
        self.calls = FakeCalls(self)
        self._worker = FakeWorker(self.runner, self.ledger, self.storage, draw, describe)

    def work(self, max_jobs: int | None = None) -> int:
        """Run waiting jobs, the oldest first; return how many ended. Raises `InvalidParams`."""
        if max_jobs is not None:
            check_count("max_jobs", max_jobs)
        done = 0
        while max_jobs is None or done < max_jobs:
            with self.redis.changed:
                job_id = next(filter(self._may_start, self.redis.messages), None)
                if job_id is None:
                    break
                self.redis.messages.remove(job_id)
            done += self._worker.run(job_id)
        return done

    def _may_start(self, job_id: str) -> bool:
        """Return whether a job's queue is not paused."""
        queue = self.redis.hget(job_key(self.settings.key_prefix, job_id), "queue") or ""
        return self.redis.hget(paused_key(self.settings.key_prefix), queue) is None

    def fail_next(self, error: CrossmodalError, times: int = 1) -> None:
        """Make the next jobs, or items of batch jobs, fail with an error's code and message.

        Raises `InvalidParams`.
        """
        self._worker.failures += [_checked(error)] * check_count("times", times)

    def refuse_next(self, error: CrossmodalError, times: int = 1) -> None:
        """Make the next submissions raise an error, as `QueueFull` or `BrokerUnavailable`.

        Raises `InvalidParams`.
        """
        self.calls.ledger.refusals += [_checked(error)] * check_count("times", times)

    @property
    def dead_letters(self) -> Letters:
        raise missing("dead letters")

    @property
    def webhooks(self) -> Webhooks:
        raise missing("webhooks")

    @property
    def keys(self) -> Keys:
        raise missing("API keys")


class FakeCalls(ClientCalls):
    """The calls of a fake client; its one worker announces itself on demand."""

    ledger: "FakeLedger"

    def __init__(self, client: FakeClient) -> None:
        super().__init__(client.settings)
        self._client = client
        self.ledger = FakeLedger(client)
        self.batches = Batches(client.settings, self.ledger)

    @call
    def models(self, *, max_age_s: float = FRESH_S) -> Steps[KnownModels]:
        yield from self.workers()
        return (yield from super().models(max_age_s=max_age_s))

    @call
    def resume(self, queue: str) -> Steps[QueueStatus]:
        found = yield from super().resume(queue)
        if not self._client.held:
            yield Blocking(self._client.work)
        return found

    @call
    def workers(self) -> Steps[list[WorkerInfo]]:
        yield from Workers(self.settings).announce(
            NAME,
            queues=[str(task) for task in tasks()],
            device="cpu",
            model=NAME,
            bundle_version=NAME,
        )
        return (yield from super().workers())


class FakeLedger(JobLedger):
    """The ledger of a fake client; runs a job as it is submitted, unless the client is held."""

    def __init__(self, client: FakeClient) -> None:
        super().__init__(client.settings)
        self._client = client
        self.refusals: list[CrossmodalError] = []

    @call
    def submit(self, job: Submission) -> Steps[tuple[str, bool]]:
        if self.refusals:
            raise self.refusals.pop(0)
        found = yield from super().submit(job)
        if not self._client.held:
            yield Blocking(self._client.work)
        return found


class AsyncFakeClient(AsyncClient):
    """The asynchronous version of `FakeClient`; `sync` is the client that it wraps."""

    sync: FakeClient

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        draw: Draw = plain_pictures,
        describe: Describe = plain_captions,
        held: bool = False,
        **overrides: Any,
    ) -> None:
        super().__init__(settings, **overrides | NOWHERE)
        self.sync = FakeClient(settings, draw=draw, describe=describe, held=held, **overrides)
        self.calls = self.sync.calls
        self.runner = AsyncFakeRunner(self.sync.settings, self.sync.redis)
        self.run = self.runner.run


def _checked(error: Any) -> CrossmodalError:
    if not isinstance(error, CrossmodalError):
        raise InvalidParams(
            f"the error is {shown(error)}: give one of crossmodal.errors, such as "
            "UnknownWords('none')"
        )
    return error
