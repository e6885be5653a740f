"""One attempt at one job: fetch, infer, encode, store, record. Knows nothing of Celery."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import (
    BrokerUnavailable,
    CrossmodalError,
    InvalidParams,
    JobFailed,
    ModelHostCrashed,
    ModelHostUnavailable,
    TimedOut,
    is_callers_fault,
)
from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import Attempt, JobLedger, NotStarted
from crossmodal.jobs.names import Task, check_job_id, result_key
from crossmodal.jobs.params import (
    BlobRef,
    Img2TxtParams,
    Params,
    Txt2ImgParams,
    fix_seed,
    parse_params,
)
from crossmodal.jobs.record import (
    Failure,
    GeneratedCaption,
    ImageRef,
    JobResult,
    Timings,
)
from crossmodal.settings import Settings
from crossmodal.storage import Storage, open_storage
from crossmodal.vision.decode import decode
from crossmodal.vision.encode import encode_png, parameters_text
from crossmodal.vision.preprocess import fit_square
from worker.host.client import LOOK_S, HostClient, NoLongerWanted
from worker.host.protocol import Answer

log = logging.getLogger(__name__)
T = TypeVar("T")

TELL_AGAIN_S = 0.5
MAX_EXCUSED = 10  # a job beside which hosts die more often is not believed any more
MAX_RECORDED_PARAMS = 4_096  # of params that are wrong, this much is kept to be looked at


@dataclass(frozen=True)
class Delivery:
    """A message as it was taken from the queue by the worker called `worker`.

    `is_recorded` says that its sender had opened the job's record, so that a job without one
    has outlived it; `expires_in_s` is of a job that has none yet.
    """

    job: str
    task: Task
    raw: Mapping[str, Any]
    worker: str
    is_recorded: bool = False
    expires_in_s: float | None = None


@dataclass(frozen=True)
class Skipped:
    """The message needs no work: its job has ended."""

    reason: str


@dataclass(frozen=True)
class Busy:
    """Another process runs the job. The message must come back, in case that process dies."""


@dataclass(frozen=True)
class Released:
    """The attempt failed in a way that may pass; the job waits for the next one."""

    failure: Failure
    counted: int


Ending = JobResult | Failure | Skipped | Busy | Released


class JobRunner:
    """What a task process needs to run jobs; made once a process, after the fork.

    `interrupted_by` is what the pool raises in an attempt that has used up its run time.
    """

    def __init__(
        self, settings: Settings, host: HostClient, interrupted_by: type[Exception]
    ) -> None:
        self._settings = settings
        self._interrupted_by = interrupted_by
        # No retries: a `start` that is sent twice would be taken for a second message.
        self._ledger = JobLedger(settings, connect(settings, retries=0))
        self._storage: Storage | None = None
        self._threads = ThreadPoolExecutor(thread_name_prefix="storage")
        self._host = host

    def run(self, delivery: Delivery) -> Ending:
        """Bring the job as far as this attempt can.

        Raises `BrokerUnavailable`, and `InvalidParams` for an id that no job may have.
        """
        problem = None if delivery.is_recorded else self._adopt(delivery)
        attempt = self._ledger.start(delivery.job, delivery.worker)
        if isinstance(attempt, NotStarted):
            log.info("job %s is not started: %s", delivery.job, attempt.reason)
            if attempt.reason == "busy":
                return Busy()
            return Skipped(attempt.reason)
        if problem is not None:
            failure = Failure.of(problem)
            self._ledger.fail(attempt, failure, dead=True)  # its sender will not learn of it
            return failure
        return self._run_attempt(delivery.task, attempt)

    def _run_attempt(self, task: Task, attempt: Attempt) -> Ending:
        """Every way in which an attempt can end, as an `Ending`."""
        try:
            result = self._attempt(task, attempt)
            if self._insist(lambda: self._ledger.succeed(attempt, result)):
                return result
            self._restore_record(attempt)
            return _superseded(attempt)
        except NoLongerWanted:
            return _superseded(attempt)
        except BrokerUnavailable:
            raise
        except CrossmodalError as e:
            return self._give_up(attempt, e)
        except self._interrupted_by:
            if self._host.is_awaited:
                return self._give_up(attempt, ModelHostUnavailable(
                    "no model host was there for as long as the attempt might run"
                ))  # fmt: skip
            return self._give_up(attempt, TimedOut(
                f"the attempt ran longer than {self._settings.run_time_limit_of(task):g} s: ask "
                "for less, or raise CROSSMODAL_RUN_TIME_LIMIT_S"
            ))  # fmt: skip
        except Exception as e:  # a mistake of ours: the job must still end, and say so
            log.exception("job %s: unexpected error", attempt.job)
            return self._give_up(attempt, CrossmodalError(f"{type(e).__name__}: {e}"))

    def _adopt(self, delivery: Delivery) -> InvalidParams | None:
        """Open the record of a job that plain Celery sent; a job that has a record keeps it.

        Returns what is wrong with the params of a record that was opened.
        """
        job_id = check_job_id(delivery.job)
        problem = None
        try:
            text = fix_seed(parse_params(delivery.task, delivery.raw)).model_dump_json()
        except InvalidParams as e:
            problem, text = e, _excerpt(delivery.raw)
        # A fingerprint is only ever compared for an idempotency key, which there is none of.
        _, is_new = self._ledger.submit(
            job_id, delivery.task, text, "", bounded=False, expires_in_s=delivery.expires_in_s
        )
        return problem if is_new else None

    def _give_up(self, attempt: Attempt, error: CrossmodalError) -> Ending:
        """Let the job wait for another attempt if that may help, or end it."""
        failure = Failure.of(error)
        counts = _is_to_blame(error, attempt)
        if error.retryable and not (counts and attempt.is_last):
            crashed_with_it = isinstance(error, ModelHostCrashed) and error.batch_size > 0
            alone = crashed_with_it or isinstance(error, TimedOut)
            kept = self._insist(
                lambda: self._ledger.release(attempt, failure, counts=counts, alone=alone)
            )
            return (
                Released(failure, attempt.counted if counts else 1)
                if kept
                else _superseded(attempt)
            )
        dead = not is_callers_fault(error.code)
        ended = self._insist(lambda: self._ledger.fail(attempt, failure, dead=dead))
        return failure if ended else _superseded(attempt)

    def _insist(self, tell: Callable[[], bool]) -> bool:
        """Tell the ledger how an attempt ended, for as long as nobody else may have begun one.

        Without this, all that a worker was finishing while Redis restarted would be run again.
        """
        deadline = time.monotonic() + self._settings.lease_s
        while True:
            try:
                return tell()
            except BrokerUnavailable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(TELL_AGAIN_S)

    def _is_wanted(self, attempt: Attempt) -> bool:
        try:
            return self._ledger.holds(attempt)
        except BrokerUnavailable:  # not to know is no reason to stop
            return True

    def _attempt(self, task: Task, attempt: Attempt) -> JobResult:
        """What the attempt made, stored. Raises `NoLongerWanted` once the job is not its own."""
        begun = time.monotonic()
        is_wanted = partial(self._is_wanted, attempt)
        params = parse_params(task, attempt.params)
        image = None
        if isinstance(params, Img2TxtParams):
            pixels = self._patiently(attempt, partial(self._fetch, params.image))
            image = fit_square(pixels, self._host.info(is_wanted).image_side)
        [answer] = self._host.run(
            task, [(params, image)], alone=attempt.is_suspect, is_wanted=is_wanted
        )
        if isinstance(answer, CrossmodalError):
            raise answer
        record = partial(self._record, task, attempt, params, answer, begun)
        return self._patiently(attempt, record, afterwards=self._restore_record)

    def _patiently(
        self, attempt: Attempt, call: Callable[[], T],
        afterwards: Callable[[Attempt], None] = lambda attempt: None,
    ) -> T:  # fmt: skip
        """Have another thread do what may block for long, so that this one can be told to stop.

        When the job is not wanted any more before `call` has ended, `afterwards` cleans up
        once it has. Raises `NoLongerWanted`, or what `call` raises.
        """
        future = self._threads.submit(call)
        while not wait([future], LOOK_S).done:
            if not self._is_wanted(attempt):
                future.add_done_callback(lambda _: afterwards(attempt))
                raise NoLongerWanted
        return future.result()

    def _fetch(self, image: BlobRef) -> NDArray[np.uint8]:
        data = self._store().get(image, self._settings.max_image_bytes)
        return decode(data, self._settings.max_image_pixels)

    def _record(
        self, task: Task, attempt: Attempt, params: Params, answer: Answer, begun: float
    ) -> JobResult:
        """Put what was made into the object store, `result.json` last."""
        stored_from = time.monotonic()
        images = tuple(self._put_images(attempt, params, answer))
        store_s = time.monotonic() - stored_from
        result = JobResult(
            job=attempt.job,
            task=task,
            params=params.model_dump(mode="json", exclude={"metadata"}),
            images=images,
            captions=tuple(GeneratedCaption.model_validate(c) for c in answer.captions),
            seed=params.seed if isinstance(params, Txt2ImgParams) else None,
            unknown_words=tuple(answer.unknown_words),
            suggestions=answer.suggestions,
            model=answer.model,
            bundle_version=answer.bundle_version,
            timings=_timings(attempt, answer, store_s, time.monotonic() - begun),
            batch_size=answer.batch_size,
            attempt=attempt.number,
            metadata=params.metadata,
        )
        self._put_result(result)
        return result

    def _put_images(self, attempt: Attempt, params: Params, answer: Answer) -> list[ImageRef]:
        if answer.images is None or not isinstance(params, Txt2ImgParams):
            return []
        refs = []
        for i, pixels in enumerate(answer.images):
            height, width = pixels.shape[:2]
            text = parameters_text(
                params.prompt, ((params.seed or 0) + i) % 2**32, params.temperature,
                (width, height), answer.model, answer.bundle_version,
            )  # fmt: skip
            key = result_key(attempt.job, f"{i}.png", attempt.number)
            blob = self._store().put(key, encode_png(pixels, text), "image/png")
            refs.append(ImageRef(**blob.model_dump(), width=width, height=height))
        return refs

    def _restore_record(self, attempt: Attempt) -> None:
        """Put back the `result.json` of the attempt that won, where this one has replaced it."""
        won = self._ledger.get(attempt.job).result
        if won is not None:
            self._put_result(won)

    def _put_result(self, result: JobResult) -> None:
        text = result.model_dump_json().encode()
        self._store().put(result_key(result.job, "result.json"), text, "application/json")

    def _store(self) -> Storage:
        # Opened on first use: a store that is away fails jobs, not the worker's start.
        if self._storage is None:
            self._storage = open_storage(self._settings)
        return self._storage


def _timings(attempt: Attempt, answer: Answer, store_s: float, run_s: float) -> Timings:
    # Waiting was timed by Redis's clock, running by this machine's: they are never subtracted.
    return Timings(
        queued_s=round(attempt.queued_s, 6),
        batch_wait_s=round(answer.batch_wait_s, 6),
        inference_s=round(answer.inference_s, 6),
        store_s=round(store_s, 6),
        total_s=round(attempt.queued_s + run_s, 6),
    )


def _is_to_blame(error: CrossmodalError, attempt: Attempt) -> bool:
    """Whether an attempt that ended so counts: what was no fault of the job must not end it."""
    if isinstance(error, ModelHostCrashed) and error.batch_size != 1:
        # It was one of many, or waited behind others: the next attempts will show.
        return attempt.excused >= MAX_EXCUSED
    return not isinstance(error, ModelHostUnavailable)


def _superseded(attempt: Attempt) -> Skipped:
    log.warning("job %s: attempt %d is not wanted any more", attempt.job, attempt.number)
    return Skipped("superseded")


def _excerpt(raw: Mapping[str, Any]) -> str:
    text = json.dumps(dict(raw), default=repr)
    if len(text) <= MAX_RECORDED_PARAMS:
        return text
    return json.dumps({"excerpt": text[:MAX_RECORDED_PARAMS]})


def raised(failure: Failure) -> JobFailed:
    """The failure as the exception that Celery and Flower show."""
    return JobFailed(f"{failure.code}: {failure.message}", failure.code, failure.retryable)
