"""The Celery tasks: they only translate between Celery and the job runner."""

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from celery.exceptions import Ignore, Reject, Retry
from celery.signals import worker_init
from celery.worker.request import Request

from crossmodal import tracing
from crossmodal.errors import BrokerUnavailable, InvalidParams, JobFailed
from crossmodal.extras import remedy
from crossmodal.jobs.names import EXPIRES_HEADER, RECORDED_HEADER
from crossmodal.jobs.record import Failure, JobResult, JobState
from crossmodal.kinds.task import Task, tasks
from worker.celery.app import app, settings
from worker.celery.pool import CoroutineTask
from worker.endings import Busy, Elsewhere, Ending, Released, Skipped, TakenMessage

if TYPE_CHECKING:
    from worker.attempt import JobRunner

RETRY_BASE_S = 1.0
RETRY_MAX_S = 60.0
ELSEWHERE_S = 0.2  # for this worker to stop taking such jobs


@worker_init.connect
def _load(**_: Any) -> None:
    """Import the job runner before any job is taken; not at import, as Flower lacks NumPy."""
    try:
        import_module("worker.attempt")
    except ImportError as e:  # Celery only logs other errors of a signal's handler
        raise SystemExit(f"jobs need {e.name}: {remedy('worker')}") from e


class NotRun(Ignore):
    """Raised for a job that is no longer wanted; the argument is the reason, as in `Skipped`."""


class JobRequest(Request):
    """A request that reports an unwanted job as revoked.

    Celery itself would report nothing, and monitors would show the task as started for ever.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        returned = super().on_failure(exc_info, *args, **kwargs)
        if isinstance(error, NotRun):
            self._revoke(error.args[0])
        return returned

    def _revoke(self, reason: str) -> None:
        """Report the task as revoked or expired, as Celery does by its own list and clock."""
        expired = reason == JobState.EXPIRED
        self.send_event("task-revoked", terminated=False, signum=None, expired=expired)
        self.task.backend.mark_as_revoked(
            self.id, reason, request=self._context, store_result=self.store_errors
        )


class JobTask(CoroutineTask):
    """The task of one kind; the keyword arguments of its messages are the params."""

    abstract = True
    Request = JobRequest
    typing = False  # wrong arguments must reach the runner, which records the error
    max_retries = None
    resultrepr_maxsize = 200
    kind: ClassVar[Task]

    async def work(self, request: Mapping[str, Any]) -> Ending:
        """Run the job and return its ending. Raises what Celery must handle if it did not begin."""
        try:
            if why := app.lanes.gate.why:  # the message came before the gate closed, or had an ETA
                ending: Ending = Elsewhere(why)
            else:
                ending = await runner().run(taken_message(self.kind, request))
            if isinstance(ending, Elsewhere):
                await asyncio.sleep(ELSEWHERE_S)
            return ending
        except InvalidParams as e:  # an invalid job id
            return Failure.of(e)
        except BrokerUnavailable as e:
            await asyncio.sleep(RETRY_BASE_S)  # it is redelivered at once: do not spin
            raise Reject(str(e), requeue=True) from e

    async def close(self) -> None:
        if runner.cache_info().currsize:
            await runner().close()
            runner.cache_clear()

    def conclude(self, outcome: Ending) -> dict[str, Any]:
        """Translate a job's ending into what Celery and Flower know."""
        if isinstance(outcome, JobResult):
            # Without a result backend Celery would only format it for its log.
            stored = settings.result_backend
            return outcome.model_dump(mode="json") if stored else {"job": outcome.job}
        if isinstance(outcome, Skipped):
            raise (Ignore if outcome.reason == "superseded" else NotRun)(str(outcome.reason))
        if isinstance(outcome, Elsewhere):
            raise Reject(outcome.why, requeue=True)
        if isinstance(outcome, Busy):
            again_s = settings.sweep_s * random.uniform(1, 2)  # noqa: S311
            self._again(Retry("another attempt of the job is running"), again_s)
        if isinstance(outcome, Released):
            self._again(_error(outcome.failure), _backoff_s(outcome.tries))
        raise _error(outcome)

    def _again(self, why: Exception, countdown_s: float) -> NoReturn:
        """Send the message again, to be taken after a while; requeue this one if that fails."""
        try:
            raise self.retry(exc=why, countdown=countdown_s)
        except Reject as e:
            raise Reject(e.reason, requeue=True) from e


@cache
def runner() -> "JobRunner":
    """Return the job runner of this process; made on first use, on the loop that it belongs to."""
    from worker.attempt import JobRunner

    return JobRunner(settings, app.hosts, gate=app.lanes.gate)


def taken_message(kind: Task, request: Mapping[str, Any]) -> TakenMessage:
    """Return a request as the job runner's `TakenMessage`. Raises `InvalidParams`."""
    headers = request.get("headers") or request  # Celery keeps a plain sender's here
    args, kwargs = request["args"], request["kwargs"]
    return TakenMessage(
        request["id"],
        kind,
        {**kwargs, "positional arguments": list(args)} if args else kwargs,
        request["hostname"],
        request["delivery_info"].get("routing_key") or "",
        has_positional=bool(args),
        is_recorded=bool(headers.get(RECORDED_HEADER)),
        expires_in_s=_expires_in_s(headers.get(EXPIRES_HEADER)),
        traceparent=tracing.checked(headers.get("traceparent")),
    )


def _error(failure: Failure) -> JobFailed:
    """Return the failure as the exception that Celery and Flower show."""
    return JobFailed(f"{failure.code}: {failure.message}", failure.code, failure.retryable)


def _expires_in_s(expires: str | None) -> float | None:
    """Return the seconds until an ISO 8601 time, 0 if it has passed."""
    if expires is None:
        return None
    at = datetime.fromisoformat(expires)
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time())


def _backoff_s(tries: int) -> float:
    """Return an exponential delay with jitter, so that jobs that failed together are spread out."""
    ceiling = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(tries, 10))
    return random.uniform(RETRY_BASE_S / 2, ceiling)  # noqa: S311 - no secret depends on it


for _kind in tasks():
    app.register_task(type("Run", (JobTask,), {"name": _kind.celery_name, "kind": _kind})())
