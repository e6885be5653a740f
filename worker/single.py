"""An attempt at a job that is one request: fetch, infer, encode, store."""

import time
from collections.abc import Callable

from crossmodal import tracing
from crossmodal.errors import CrossmodalError
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.params import Img2TxtParams, ItemParams, Txt2ImgParams, task_of
from crossmodal.jobs.record import GeneratedCaption, JobResult, Timings
from crossmodal.metrics import output_stored
from crossmodal.vision.preprocess import fit_square
from worker.blobs import Blobs
from worker.host.client import HostClient
from worker.host.protocol import Answer
from worker.wanted import Wanted


class SingleRun:
    """Runs jobs of one request each."""

    def __init__(self, blobs: Blobs, host: HostClient) -> None:
        self._blobs = blobs
        self._host = host

    def run(
        self, attempt: Attempt, params: ItemParams, wanted: Wanted, clean_up: Callable[[], None]
    ) -> JobResult:
        """What the attempt made, stored; `clean_up` undoes a store that came too late.

        Raises `NoLongerWanted` once the job is not its own.
        """
        begun = time.monotonic()
        image = None
        if isinstance(params, Img2TxtParams):
            ref = params.image
            with tracing.span("fetch input"):
                pixels = wanted.patiently(lambda: self._blobs.picture(ref))
            image = fit_square(pixels, self._host.info(wanted).image_side)
        with tracing.span("infer", kind="client"):
            [answer] = self._host.run(
                task_of(params), [(params, image)], alone=attempt.is_suspect, is_wanted=wanted
            )
            if isinstance(answer, CrossmodalError):
                raise answer
        wanted.check()
        with tracing.span("store"):
            return wanted.patiently(lambda: self._record(attempt, params, answer, begun), clean_up)

    def _record(
        self, attempt: Attempt, params: ItemParams, answer: Answer, begun: float
    ) -> JobResult:
        """Put what was made into the object store, `result.json` last."""
        stored_from = time.monotonic()
        images = self._blobs.put_images(attempt, params, answer)
        store_s = time.monotonic() - stored_from
        result = JobResult(
            job=attempt.job,
            task=task_of(params),
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
        self._blobs.put_result(result)
        output_stored(result.task, time.monotonic() - stored_from)
        return result


def _timings(attempt: Attempt, answer: Answer, store_s: float, run_s: float) -> Timings:
    # Waiting was timed by Redis's clock, running by this machine's: they are never subtracted.
    return Timings(
        queued_s=round(attempt.queued_s, 6),
        batch_wait_s=round(answer.batch_wait_s, 6),
        inference_s=round(answer.inference_s, 6),
        store_s=round(store_s, 6),
        total_s=round(attempt.queued_s + run_s, 6),
    )
