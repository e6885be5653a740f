"""Runs batch jobs submitted over HTTP, whichever gateway accepted them."""

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from crossmodal.errors import BrokerUnavailable, CrossmodalError, JobNotFound
from crossmodal.jobs.http_batches import HttpBatch, HttpBatches, UnreadableBatch
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.settings import Settings
from producer.client import Client
from worker.background.http_batch_run import BatchLeft, BatchRun

POLL_S = 1.0
RETRY_S, RETRY_MAX_S = 2.0, 60.0  # delay before a batch job is retried, doubled each time
UNREAD_S = 60.0  # the same, if another version wrote its record
MAX_RUNS, MAX_OF_OWNER = 8, 2  # batch jobs that run here at once, in all and of one owner
MAX_FIRST = 32  # the same, if each owner has only one: no owner waits for another

log = logging.getLogger(__name__)


class BatchRunner:
    """A batch runner: starts batch jobs without a runner, the oldest first. Several may run."""

    def __init__(self, settings: Settings, runner: AsyncRunner, client: Client) -> None:
        self._runner = runner
        self._client = client
        self._batches = HttpBatches(settings)
        self._me = new_job_id()
        self._threads = ThreadPoolExecutor(MAX_FIRST, "batch")
        self._runs: dict[str, BatchRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._canceled: set[str] = set()
        self._is_leaving = False
        self._is_out = False  # so that an outage of Redis is logged once
        self.turned_at = time.monotonic()
        self._tries: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Run batch jobs until `stopping` is set, then leave them to the next process."""
        told = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                self.turned_at = time.monotonic()
                await self._poll_safely()
                await asyncio.wait({told}, timeout=POLL_S)
        finally:
            self._is_leaving = True
            for run in self._runs.values():
                run.leave()
            self._threads.shutdown(wait=False)
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _poll_safely(self) -> None:
        """Poll, and log any error: without this loop no batch job is run."""
        try:
            await self._poll()
            self._is_out = False
        except BrokerUnavailable as e:
            if not self._is_out:
                log.warning("batches wait for Redis: %s", e)
            self._is_out = True
        except Exception:
            log.exception("internal error in polling for batches")

    async def _poll(self) -> None:
        """Renew the leases of batch jobs that run here, and start those without a runner."""
        kept = (self._keep(i, run) for i, run in self._runs.items())
        for error in await asyncio.gather(*kept, return_exceptions=True):
            if isinstance(error, BrokerUnavailable):
                raise error
            if error is not None:  # it must not affect the others
                log.error("the lease of a batch was not renewed: %r", error)
        unfinished = await self._runner.run(self._batches.unfinished())
        for ended in self._not_before.keys() - unfinished.keys():
            self._not_before.pop(ended)
            self._tries.pop(ended, None)
        busy = Counter(unfinished[i] for i in self._tasks if i in unfinished)
        for batch_id, owner in unfinished.items():
            room = MAX_RUNS if busy[owner] else MAX_FIRST
            if busy[owner] >= MAX_OF_OWNER or len(self._tasks) >= room:
                continue
            if not self._may_begin(batch_id):
                continue
            if await self._runner.run(self._batches.lease(batch_id, self._me)):
                busy[owner] += 1
                self._tasks[batch_id] = asyncio.create_task(self._run(batch_id))

    def _may_begin(self, batch_id: str) -> bool:
        is_early = self._not_before.get(batch_id, 0.0) > time.monotonic()
        return batch_id not in self._tasks and not is_early

    async def _keep(self, batch_id: str, run: BatchRun) -> None:
        """Renew the lease, and finish a cancellation in which the gateway may have died."""
        if not await self._runner.run(self._batches.lease(batch_id, self._me)):
            run.leave()
        if batch_id in self._canceled:
            return
        if await self._runner.run(self._batches.is_canceled(batch_id)):
            await self._cancel(batch_id)

    async def _cancel(self, batch_id: str) -> None:
        await self._runner.run(self._batches.cancel(batch_id))
        self._canceled.add(batch_id)

    async def _run(self, batch_id: str) -> None:
        """Run a batch job to its end, or leave it for a retry if that may help."""
        try:
            batch = await self._found(batch_id)
            if batch is not None:
                ended = batch if batch.is_done else await self._ended(batch)
                await self._runner.run(self._batches.close(ended))
        except BatchLeft:
            log.info("batch %s is left to the next process", batch_id)
        except (CrossmodalError, OSError) as e:  # such as a full disk
            log.warning("batch %s is retried later: %s", batch_id, e)
            self._put_off(batch_id)
        except Exception:
            log.exception("internal error in batch %s, which is retried later", batch_id)
            self._put_off(batch_id)
        else:
            self._tries.pop(batch_id, None)
        finally:
            self._canceled.discard(batch_id)
            await self._release(batch_id)

    async def _release(self, batch_id: str) -> None:
        try:
            await self._runner.run(self._batches.release(batch_id, self._me))
        except BrokerUnavailable as e:  # then its lease expires
            log.warning("batch %s is not released before its lease ends: %s", batch_id, e)
        finally:
            del self._tasks[batch_id]

    def _put_off(self, batch_id: str) -> None:
        """Delay the next try of the batch job, longer each time."""
        wait_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._tries[batch_id], 10))
        self._tries[batch_id] += 1
        self._not_before[batch_id] = time.monotonic() + wait_s

    async def _found(self, batch_id: str) -> HttpBatch | None:
        """Return the record of the batch job; None if it cannot be run."""
        try:
            return await self._runner.run(self._batches.get(batch_id))
        except JobNotFound:
            log.error("batch %s cannot be run: its record is gone", batch_id)
            await self._runner.run(self._batches.forget(batch_id))
        except UnreadableBatch as e:
            log.error("batch %s is skipped for now: %s", batch_id, e)
            self._not_before[batch_id] = time.monotonic() + UNREAD_S
        return None

    async def _ended(self, batch: HttpBatch) -> HttpBatch:
        """Run the batch job; return its record once it ended or failed. Raises retryable errors."""
        if batch.is_canceled:
            await self._cancel(batch.id)
        if self._is_leaving:
            raise BatchLeft
        run = self._runs[batch.id] = BatchRun(self._client, batch)
        try:
            loop = asyncio.get_running_loop()
            ended = await loop.run_in_executor(self._threads, run.to_end)
        finally:
            del self._runs[batch.id]
        if ended.failure is not None:
            await self._runner.run(self._batches.cancel(batch.id))
        return ended
