"""The Celery tasks: they translate between Celery's world and the job runner's, no more."""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task as CeleryTask
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
)
from celery.signals import worker_init
from celery.worker.request import Request
from celery.worker.state import task_ready

from crossmodal import tracing
from crossmodal.errors import BrokerUnavailable, InvalidParams, TimedOut
from crossmodal.extras import remedy
from crossmodal.garbage import settle
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import EXPIRES_HEADER, RECORDED_HEADER, Task
from crossmodal.jobs.record import Failure, JobResult, JobState
from crossmodal.jobs.runners import Runner
from worker.app import app, settings
from worker.devices import default_socket

if TYPE_CHECKING:
    from worker.runner import JobRunner

RETRY_BASE_S = 1.0
RETRY_MAX_S = 60.0

log = logging.getLogger(__name__)


@worker_init.connect
def _load(sender: Any, **_: Any) -> None:
    """Load what runs jobs before the fork, and no more: Flower lacks NumPy."""
    try:
        import_module("worker.runner")
        import_module("PIL.Image").preinit()  # formats, which would be imported at first use
    except ImportError as e:  # Celery logs other errors of a signal's handler, and goes on
        raise SystemExit(f"jobs need {e.name}: {remedy('worker')}") from e
    settle()  # or the first collection in each forked process copies all of that


@cache
def runner() -> "JobRunner":
    """This process's runner; made on first use, so after the fork and never shared."""
    from worker.host.client import HostClient
    from worker.runner import JobRunner

    path = settings.host_socket or default_socket("cpu")
    host = HostClient(path, settings.host_wait_s, settings.inference_timeout_s)
    runner = JobRunner(settings, host, interrupted_by=SoftTimeLimitExceeded)
    settle()
    return runner


class NotRun(Ignore):
    """Nobody wants the job any more; the argument says why, as `Skipped` does."""


class JobRequest(Request):
    """A message in the hands of the Celery main process.

    What Celery would pass over in silence is told here, or monitors show the task as started for
    ever: a job that nobody wants any more as revoked, one that runs again as retried.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Have a job whose process must be killed counted as timed out, and run again."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, TimeLimitExceeded):
            task_ready(self)
            self._put_back()
            return self.send_event("task-retried", exception=repr(error))
        returned = super().on_failure(exc_info, *args, **kwargs)
        if isinstance(error, NotRun):
            self._revoke(error.args[0])
        return returned

    def _revoke(self, reason: str) -> None:
        """As Celery ends what it was told to revoke, and what has expired by its own clock."""
        expired = reason == JobState.EXPIRED
        self.send_event("task-revoked", terminated=False, signum=None, expired=expired)
        self.task.backend.mark_as_revoked(
            self.id, reason, request=self._context, store_result=self.store_errors
        )

    def _put_back(self) -> None:
        failure = Failure.of(TimedOut(
            f"the attempt could not be interrupted within {settings.kill_after_s:g} s of its "
            "limit: its process was killed"
        ))  # fmt: skip
        try:
            Runner(settings).run(JobLedger(settings).abandon(self.hostname, [self.id], failure))
        except BrokerUnavailable as e:  # then it counts as lost, once its lease has ended
            log.warning("job %s: %s", self.id, e)
        self.reject(requeue=True)


def _limits(task: Task) -> dict[str, float]:
    limit = settings.run_time_limit_of(task)
    return {"soft_time_limit": limit, "time_limit": limit + settings.kill_after_s}


# typing=False: wrong arguments must reach the runner, which records what is wrong with them.
OPTIONS: dict[str, Any] = {
    "bind": True,
    "Request": JobRequest,
    "typing": False,
    "max_retries": None,
    "resultrepr_maxsize": 200,
}


def _declare(task: Task) -> None:
    """Let Celery know a task; its keyword arguments are the params of that kind of job."""

    @app.task(name=task.celery_name, **OPTIONS, **_limits(task))
    def run(self: CeleryTask, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _run(self, task, args, kwargs)


for _task in Task:
    _declare(_task)


def _run(
    self: CeleryTask, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    from worker.runner import Busy, Delivery, Released, Skipped, raised

    request = self.request
    raw = {**kwargs, "positional arguments": list(args)} if args else kwargs
    headers = request.headers or {}
    try:
        delivery = Delivery(
            request.id, task, raw, request.hostname,
            is_recorded=bool(headers.get(RECORDED_HEADER)),
            expires_in_s=_expires_in_s(headers.get(EXPIRES_HEADER)),
            traceparent=tracing.checked(headers.get("traceparent")),
        )  # fmt: skip
        ending = runner().run(delivery)
    except InvalidParams as e:  # an id that no record can have
        raise raised(Failure.of(e)) from e
    except (BrokerUnavailable, SoftTimeLimitExceeded) as e:
        time.sleep(RETRY_BASE_S)  # the message comes back at once: do not spin on a sick broker
        raise Reject(str(e), requeue=True) from e
    if isinstance(ending, JobResult):
        # Without a result backend nobody reads it, and Celery would make a text of it for its log.
        return ending.model_dump(mode="json") if settings.result_backend else {"job": ending.job}
    if isinstance(ending, Skipped):
        raise (Ignore if ending.reason == "superseded" else NotRun)(str(ending.reason))
    if isinstance(ending, Busy):
        _again(self, Retry("another process runs the job"), settings.sweep_s * random.uniform(1, 2))  # noqa: S311
    if isinstance(ending, Released):
        _again(self, raised(ending.failure), _backoff_s(ending.counted))
    raise raised(ending)


def _expires_in_s(expires: str | None) -> float | None:
    """Seconds from now until an ISO 8601 time, 0 when it has passed."""
    if expires is None:
        return None
    at = datetime.fromisoformat(expires)
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time())


def _again(self: CeleryTask, why: Exception, countdown_s: float) -> NoReturn:
    """Send the message again, to be taken after a while; keep this one if that fails."""
    try:
        raise self.retry(exc=why, countdown=countdown_s)
    except Reject as e:
        raise Reject(e.reason, requeue=True) from e


def _backoff_s(counted: int) -> float:
    """Exponential, with full jitter, so that jobs that failed together come back apart."""
    ceiling = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(counted, 10))
    return random.uniform(RETRY_BASE_S / 2, ceiling)  # noqa: S311 - no secret depends on it
