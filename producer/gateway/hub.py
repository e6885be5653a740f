"""One reader of the ledger's events for all event streams of this process.

A thousand open streams cost one blocking read, and one call a second for places in queues. The
hub only wakes followers: on waking, or after a while without events, they read the job's record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Steps, Waiting, call, redis
from crossmodal.jobs.ledger import WATCH_S
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.names import SHARDS, queue_key
from crossmodal.jobs.record import Job, JobState, Progress, QueueStatus, WorkerInfo
from producer.aio import AsyncClient
from producer.waiting import entries_of

log = logging.getLogger(__name__)

BLOCK_S = 1.0  # max; kept below the socket's timeout
TICK_S = 1.0  # poll interval of places and queues
AGAIN_S = 1.0  # retry interval after Redis has failed
MOST_UNREAD = 200  # max changed jobs that a watcher has not taken; the oldest are dropped
MOST_CHANGED = 1_000  # max changed jobs whose records are not read yet; the oldest are dropped
MOST_READ = 50  # max records of changed jobs read at once


@dataclass(eq=False)
class Follower:
    """A follower of one job; `queue` is where it waits, `position` its place there."""

    job: str
    owner: str = ""
    queue: str | None = None
    position: int | None = None
    has_news: bool = False
    is_over: bool = False
    is_watching: bool = False
    """Whether the running job is watched: then previews are made."""
    steps: list[Progress] = field(default_factory=list)
    """Steps that the job has reported and `take_steps` has not returned yet."""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Clear the news, just before the job's record is read."""
        self.has_news = False

    def end(self) -> None:
        """End the stream of this follower."""
        self.is_over = True
        self.tell()

    def tell(self, step: Progress | None = None) -> None:
        """Wake the follower: the job has changed, or has done a step."""
        self.has_news = True
        self.steps += [] if step is None else [step]
        self._woken.set()

    def take_steps(self) -> list[Progress]:
        """Return the steps since the last call."""
        taken, self.steps = self.steps, []
        return taken

    def place(self, position: int) -> None:
        """Update the job's place in its queue, and wake the follower if it moved by over 10%."""
        if self.position is None or abs(position - self.position) > position // 10:
            self.position = position
            self._woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until woken or until the timeout."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        self._woken.clear()


@dataclass(eq=False)
class Watcher:
    """A watcher of the queues and of all jobs of an owner; None: of all owners."""

    owner: str | None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: dict[str, Job] = field(default_factory=dict)
    running: dict[str, None] = field(default_factory=dict)
    """The running ones among the reported jobs."""
    queues: tuple[list[QueueStatus], list[WorkerInfo]] | None = None
    is_behind: bool = False
    """Whether an event was missed: then the stream ends, and its client reads the state again."""

    def end(self) -> None:
        """End the stream of this watcher."""
        self.is_behind = True
        self.news.set()

    def tell(self, job: Job) -> None:
        """Keep a changed job and wake the watcher."""
        for known in (self.jobs, self.running):
            known.pop(job.id, None)
        self.jobs[job.id] = job
        if job.state is JobState.RUNNING:
            self.running[job.id] = None
        for known in (self.jobs, self.running):
            if len(known) > MOST_UNREAD:
                del known[next(iter(known))]
        self.news.set()

    def take(self) -> Iterator[Job]:
        """Yield the jobs that have changed since the last call."""
        while self.jobs:
            yield self.jobs.pop(next(iter(self.jobs)))


class Hub:
    """The dispatcher of events to followers and watchers, all in one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._block_ms = int(1_000 * min(BLOCK_S, client.sync.settings.connect_timeout_s / 2))
        self._prefix = client.sync.settings.key_prefix
        self._keys = ApiKeys(client.sync.settings)
        self._followers: dict[str, set[Follower]] = defaultdict(set)
        self._watchers: set[Watcher] = set()
        self._changed: OrderedDict[str, None] = OrderedDict()
        self._stats: dict[str, QueueStatus] = {}
        self._known: KnownModels | None = None
        self._watched: dict[str, float] = {}  # job id: when it was last marked
        self._tasks: list[asyncio.Task[None]] = []
        self._is_out = False
        self.is_closing = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._tick())]

    def stop_streams(self) -> None:
        """End the streams of all followers and watchers."""
        self.is_closing = True
        self._wake_all()

    async def close(self) -> None:
        self.stop_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def follow(self, job_id: str, owner: str = "") -> Iterator[Follower]:
        """Follow the events of a job, until its owner's key is revoked."""
        follower = Follower(job_id, owner)
        self._followers[job_id].add(follower)
        try:
            yield follower
        finally:
            self._followers[job_id].discard(follower)
            if not self._followers[job_id]:
                del self._followers[job_id]

    @contextmanager
    def watch(self, owner: str | None) -> Iterator[Watcher]:
        """Watch the changes of an owner's jobs and of the queues."""
        watcher = Watcher(owner)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def estimate(self, queue: str, position: int) -> float | None:
        """Return the estimated seconds until a job at this place starts; None if unknown."""
        stats = self._stats.get(queue)
        return None if stats is None else stats.wait_s(position)

    def waits_for(self, queue: str) -> str | None:
        """Return what a queue's jobs wait for beside their turn: a worker, or their model."""
        return None if self._known is None else self._known.waits_for(queue)

    # -- events ---------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read all event shards until closed; after an outage, wake all to read the records."""
        seen: dict[str, str] = {}
        while not self.is_closing:  # asyncio may lose a cancellation
            try:
                seen = seen or await self._now()
                self._feed(await self._client.run(_news(seen, max(1, self._block_ms))), seen)
                self._note_well()
            except BrokerUnavailable as e:
                self._note_outage(e)
                await asyncio.sleep(AGAIN_S)
            except Exception:  # all streams depend on this task
                log.exception("an internal error while reading events")
                await asyncio.sleep(AGAIN_S)

    def _note_outage(self, error: BrokerUnavailable) -> None:
        """Log an outage when it begins."""
        if not self._is_out:
            log.warning("events cannot be read: %s", error)
        self._is_out = True

    def _note_well(self) -> None:
        if self._is_out:
            log.info("events are read again")
            self._is_out = False
            self._wake_all()

    async def _now(self) -> dict[str, str]:
        seconds = int(await self._client.run(self._client.calls.ledger.now()))
        since = f"{(seconds - 1) * 1_000}"  # includes events during this call
        return {f"{self._prefix}:events:{shard}": since for shard in range(SHARDS)}

    def _feed(self, reply: Any, seen: dict[str, str]) -> None:
        for stream, entries in entries_of(reply):
            for entry_id, fields in entries:
                seen[stream] = entry_id
                for follower in self._followers.get(fields["id"], ()):
                    follower.tell(_step(fields))
                if self._watchers:
                    self._note_changed(fields["id"])

    def _note_changed(self, job_id: str) -> None:
        self._changed[job_id] = None
        self._changed.move_to_end(job_id)
        if len(self._changed) > MOST_CHANGED:
            self._changed.popitem(last=False)

    def _wake_all(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.tell()
        for watcher in self._watchers:
            watcher.is_behind = True
            watcher.news.set()

    # -- changes without an event ---------------------------------------------------------

    async def _tick(self) -> None:
        next_at = time.monotonic()
        while not self.is_closing:
            try:
                await self._tell_changed()
                if time.monotonic() >= next_at:
                    next_at = time.monotonic() + TICK_S
                    await self._look()
            except BrokerUnavailable as e:
                self._note_outage(e)
                await asyncio.sleep(AGAIN_S)
            except Exception:
                log.exception("an internal error while polling queues and jobs")
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(TICK_S / 10)

    async def _tell_changed(self) -> None:
        """Give watchers the records of changed jobs, the latest jobs first."""
        ids = list(islice(reversed(self._changed), MOST_READ))
        if not ids or not self._watchers:
            self._changed.clear()
            return
        for job_id in ids:  # before the read: a job that changes meanwhile is read again
            del self._changed[job_id]
        for job in await self._records(ids):
            for watcher in self._watchers:
                if watcher.owner in (None, job.owner) and not job.task.is_bulk:
                    watcher.tell(job)

    async def _records(self, ids: list[str]) -> list[Job]:
        found = await asyncio.gather(
            *(self._client.record(job_id) for job_id in reversed(ids)), return_exceptions=True
        )
        for error in found:  # a job may have been deleted meanwhile, or its record is damaged
            if isinstance(error, BaseException) and not isinstance(
                error, JobNotFound | ValidationError
            ):
                raise error
        return [job for job in found if isinstance(job, Job)]

    async def _look(self) -> None:
        """Poll places and queues, end streams of revoked keys, mark the watched jobs."""
        await self._end_revoked()
        await self._watch()
        waiting = [f for some in self._followers.values() for f in some if f.queue is not None]
        if waiting or self._watchers:
            self._known = await self._client.models(max_age_s=TICK_S)
            queues = await self._client.queues()
            workers = await self._client.workers()
            self._stats = {status.queue: status for status in queues}
            for watcher in self._watchers:
                watcher.queues = (queues, workers)
                watcher.news.set()
        if waiting:
            await self._place(waiting)

    async def _end_revoked(self) -> None:
        """End the streams of keys that have been revoked since."""
        begun: list[Follower | Watcher] = [*self._watchers, *chain(*self._followers.values())]
        if owners := {one.owner for one in begun if one.owner}:
            revoked = await self._client.run(self._keys.revoked(owners))
            for one in begun:
                if one.owner in revoked:
                    one.end()

    async def _watch(self) -> None:
        """Mark watched running jobs in the ledger, at once and then every `WATCH_S`."""
        followed = {f.job for some in self._followers.values() for f in some if f.is_watching}
        wanted = followed.union(*(watcher.running for watcher in self._watchers))
        now = time.monotonic()
        due = {job for job in wanted if now - self._watched.get(job, -WATCH_S) >= WATCH_S}
        self._watched = {job: now if job in due else self._watched[job] for job in wanted}
        if due:
            await self._client.run(self._client.calls.ledger.watch(sorted(due)))

    async def _place(self, waiting: list[Follower]) -> None:
        ranks = await self._client.run(_ranks(self._prefix, waiting))
        for follower, rank in zip(waiting, ranks, strict=True):
            if rank is not None:
                follower.place(rank)


def _step(fields: dict[str, str]) -> Progress | None:
    text = fields.get("progress")
    return None if text is None else Progress.model_validate_json(text)


@call
def _news(seen: dict[str, str], block_ms: int) -> Steps[Any]:
    """Read the entries after those `seen`; block up to `block_ms` while there are none."""
    return (yield Waiting(redis.xread(seen, block=block_ms)))


@call
def _ranks(prefix: str, waiting: list[Follower]) -> Steps[list[int | None]]:
    """Return each followed job's place in its queue; None if it has left the queue."""
    ranks: list[int | None] = yield [
        redis.zrank(queue_key(prefix, str(follower.queue), "queued"), follower.job)
        for follower in waiting
    ]
    return ranks
