"""One reader of the ledger's events for all who follow jobs through this process.

A thousand open streams cost one blocking read, and one call a second for the places of those
that wait. Whoever is woken, or has heard nothing for a while, looks at the job's record: the hub
says that, not what, happened.
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

BLOCK_S = 1.0  # at most; and shorter than the socket's own patience
TICK_S = 1.0  # how often places and queues are looked at
AGAIN_S = 1.0  # after Redis has failed
MOST_UNREAD = 200  # changed jobs that a watcher has not taken; then the oldest are forgotten
MOST_CHANGED = 1_000  # that nobody has read the records of; then the oldest are forgotten
MOST_READ = 50  # records of changed jobs that are read at once


@dataclass(eq=False)
class Follower:
    """Somebody who follows one job; `queue` is where it waits, `position` its place there."""

    job: str
    owner: str = ""
    queue: str | None = None
    position: int | None = None
    has_news: bool = False
    is_over: bool = False
    is_watching: bool = False
    """Whether the job runs, and it is wanted how far it is: then previews are, too."""
    steps: list[Progress] = field(default_factory=list)
    """What the job has told of how far it is, and nobody has taken."""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Note that the job is being looked at: what has happened until now is no news."""
        self.has_news = False

    def end(self) -> None:
        """Have this come to an end."""
        self.is_over = True
        self.tell()

    def tell(self, step: Progress | None = None) -> None:
        """Say that something has happened to the job, if only a step."""
        self.has_news = True
        self.steps += [] if step is None else [step]
        self._woken.set()

    def take_steps(self) -> list[Progress]:
        """The steps since the last call."""
        taken, self.steps = self.steps, []
        return taken

    def place(self, position: int) -> None:
        """Say where in its queue the job is now; far back, only what makes a difference."""
        if self.position is None or abs(position - self.position) > position // 10:
            self.position = position
            self._woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when there is something to tell, or when the time is up."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        self._woken.clear()


@dataclass(eq=False)
class Watcher:
    """Somebody who watches all jobs of an owner, or of everybody, and the queues."""

    owner: str | None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: dict[str, Job] = field(default_factory=dict)
    running: dict[str, None] = field(default_factory=dict)
    """Those of the jobs that it was told of that run."""
    queues: tuple[list[QueueStatus], list[WorkerInfo]] | None = None
    is_behind: bool = False
    """Whether something was missed: then the stream ends, and its client looks for itself."""

    def end(self) -> None:
        """Have this come to an end."""
        self.is_behind = True
        self.news.set()

    def tell(self, job: Job) -> None:
        """Say that a job has changed."""
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
        """The jobs that have changed since they were taken last."""
        while self.jobs:
            yield self.jobs.pop(next(iter(self.jobs)))


class Hub:
    """Tells followers and watchers; all in one event loop."""

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
        self._watched: dict[str, float] = {}  # when it was said last that somebody watches
        self._tasks: list[asyncio.Task[None]] = []
        self._is_out = False
        self.is_closing = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._tick())]

    def stop_streams(self) -> None:
        """Have everybody who follows or watches come to an end."""
        self.is_closing = True
        self._wake_all()

    async def close(self) -> None:
        self.stop_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def follow(self, job_id: str, owner: str = "") -> Iterator[Follower]:
        """Be told when something happens to a job, until its owner's key is revoked."""
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
        """Be given jobs that have changed, and the queues when they have."""
        watcher = Watcher(owner)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def estimate(self, queue: str, position: int) -> float | None:
        """Seconds until a job at this place is likely to be started, as the queue runs now."""
        stats = self._stats.get(queue)
        return None if stats is None else stats.wait_s(position)

    def waits_for(self, queue: str) -> str | None:
        """What a job of a queue waits for beside its turn: a worker, or its model."""
        return None if self._known is None else self._known.waits_for(queue)

    # -- what happened --------------------------------------------------------------------

    async def _read(self) -> None:
        """Read all shards for ever; after an outage everybody looks for themselves."""
        seen: dict[str, str] = {}
        while not self.is_closing:  # asyncio may lose a cancellation
            try:
                seen = seen or await self._now()
                self._feed(await self._client.run(_news(seen, max(1, self._block_ms))), seen)
                self._note_well()
            except BrokerUnavailable as e:
                self._note_outage(e)
                await asyncio.sleep(AGAIN_S)
            except Exception:  # without this task nobody is told anything
                log.exception("an internal error in reading events")
                await asyncio.sleep(AGAIN_S)

    def _note_outage(self, error: BrokerUnavailable) -> None:
        """Say once that nothing is known any more."""
        if not self._is_out:
            log.warning("events are not read: %s", error)
        self._is_out = True

    def _note_well(self) -> None:
        if self._is_out:
            log.info("events are read again")
            self._is_out = False
            self._wake_all()

    async def _now(self) -> dict[str, str]:
        seconds = int(await self._client.run(self._client.calls.ledger.now()))
        since = f"{(seconds - 1) * 1_000}"  # what happened while it was asked counts, too
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

    # -- what changes without an event ----------------------------------------------------

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
                log.exception("an internal error in looking at queues and jobs")
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(TICK_S / 10)

    async def _tell_changed(self) -> None:
        """Give watchers the records of jobs that have changed, the latest first."""
        ids = list(islice(reversed(self._changed), MOST_READ))
        if not ids or not self._watchers:
            self._changed.clear()
            return
        for job_id in ids:  # before they are read: what changes meanwhile is read again
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
        """The places of followed jobs, and the state of the queues; say who is watched."""
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
        """End what was begun with keys that have been revoked since."""
        begun: list[Follower | Watcher] = [*self._watchers, *chain(*self._followers.values())]
        if owners := {one.owner for one in begun if one.owner}:
            revoked = await self._client.run(self._keys.revoked(owners))
            for one in begun:
                if one.owner in revoked:
                    one.end()

    async def _watch(self) -> None:
        """Say of the jobs that run that somebody watches: at once, and every few seconds."""
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
    """What streams have after what was seen of each, as soon as there is something."""
    return (yield Waiting(redis.xread(seen, block=block_ms)))


@call
def _ranks(prefix: str, waiting: list[Follower]) -> Steps[list[int | None]]:
    """The place in its queue of each followed job; None of one that has left it."""
    ranks: list[int | None] = yield [
        redis.zrank(queue_key(prefix, str(follower.queue), "queued"), follower.job)
        for follower in waiting
    ]
    return ranks
