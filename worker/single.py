"""A job of one request: fetch its picture, infer, store the output."""

import time

from crossmodal import tracing
from crossmodal.errors import CrossmodalError, ModelNotFound
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.params import task_of
from crossmodal.jobs.record import JobResult, Timings
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.kinds.base import ItemParams, build
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.metrics import output_stored
from worker.blobs import Blobs
from worker.cancel import CancelToken
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer
from worker.hosts import Hosts, NotServed
from worker.items import Items
from worker.previews import Previews
from worker.progress import ProgressTeller


class SingleRun:
    """Runs attempts at jobs that are not bulk messages."""

    def __init__(self, blobs: Blobs, items: Items, redis: AsyncRunner, ledger: JobLedger) -> None:
        self._blobs = blobs
        self._items = items
        self._redis = redis
        self._ledger = ledger
        self._previews = Previews(blobs)

    async def close(self) -> None:
        await self._previews.close()

    async def run(self, token: CancelToken, task: Task, hosts: Hosts) -> JobResult:
        """Return the stored result. Raises the job's own errors, and those of the services."""
        begun, raw = time.monotonic(), token.attempt.params
        try:
            host = hosts.of(Queue(task, raw.get("model")))
        except NotServed as e:
            raise ModelNotFound(
                f"the model {raw.get('model')} is not the default one any more"
            ) from e
        params = build((await host.info()).params_of(task.kind), raw)
        image = await self._items.image(params, host)
        with tracing.span("infer", kind="client"):
            answer = await self._infer(token, host, task, HostRequest(params, image))
        with tracing.span("store"):
            return await self._blobs.call(self._result, token, params, answer, begun)

    async def _infer(
        self, token: CancelToken, host: HostClient, task: Task, request: HostRequest
    ) -> Answer:
        """Return a host's answer, and report progress meanwhile. Raises the host's error."""
        previews = self._previews.of(token.attempt)
        progress = ProgressTeller(self._redis, self._ledger, token.attempt, previews)
        try:
            [answer] = await self._items.infer(token, host, task, [request], progress=progress)
            if isinstance(answer, CrossmodalError):
                raise answer
            await progress.flush()
        finally:
            self._previews.end(previews)
        return answer

    def _result(
        self, token: CancelToken, params: ItemParams, answer: Answer, begun: float
    ) -> JobResult:
        """Store the output, and return the job's result."""
        attempt, task = token.attempt, task_of(params)
        stored_from = time.monotonic()
        made = self._items.store(token, params, answer)
        self._blobs.put_captions(attempt, answer.captions)
        store_s = time.monotonic() - stored_from
        output_stored(task, store_s)
        return JobResult(
            **made,
            job=attempt.job,
            task=task,
            params=params.model_dump(mode="json", exclude={"metadata"}),
            model=answer.model,
            bundle_version=answer.bundle_version,
            repeatable=answer.repeatable,
            timings=_timings(attempt, answer, store_s, time.monotonic() - begun),
            batch_size=answer.batch_size,
            attempt=attempt.number,
            metadata=params.metadata,
        )


def _timings(attempt: Attempt, answer: Answer, store_s: float, run_s: float) -> Timings:
    # Waiting is timed by Redis's clock, running by this machine's: never subtract them.
    return Timings(
        queued_s=round(attempt.queued_s, 6),
        batch_wait_s=round(answer.batch_wait_s, 6),
        inference_s=round(answer.inference_s, 6),
        store_s=round(store_s, 6),
        total_s=round(attempt.queued_s + run_s, 6),
    )
