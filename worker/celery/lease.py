"""The lease: a worker's renewed claim on its messages in hand and on the jobs it runs.

A message in hand is in kombu's `unacked_index`, scored by the time when it was taken; any worker's
sweep redelivers those with an old score. This worker renews the scores of its own, so that a job
may run for hours, and a dead worker's messages come back within a lease. The ledger keeps a lease
for each running attempt, by which a second delivery tells a live attempt from a dead one.

The heartbeat file shows that this worker lives: it is touched while Celery's loop consumes and the
jobs' loop turns. In an outage of Redis, Celery's loop waits inside kombu; then the jobs' loop
touches the file, for as long as its own calls to Redis fail as well. Like
`worker/celery/transport.py` this depends on kombu's internals; a test fails when those change.
"""

import asyncio
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from celery import bootsteps

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.models import Models
from crossmodal.jobs.names import celery_prefix, is_job_id
from crossmodal.jobs.record import ModelInfo
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from worker import beat as heartbeat
from worker.celery.models import ModelsStep, drains
from worker.celery.pool import CoroutinePool
from worker.celery.predecessor import give_back
from worker.celery.strays import Strays
from worker.notices import Lasting
from worker.outages import may_pass
from worker.recovery import Recovery
from worker.residents import Residents
from worker.serving import served_alone

log = logging.getLogger(__name__)

TELL_MODELS_S = 60.0
MAX_AT_ONCE = 200  # messages that one sweep redelivers before the worker's loop goes on
BEAT_S = 1.0
SILENT_S = 5.0  # Redis answers every second while a worker consumes
MUTE_S = 15.0  # how far beyond `health_check_interval` remote control may be silent


class Lease:
    """The renewal of all leases of this worker, on the jobs' loop, also while it drains."""

    def __init__(
        self,
        settings: Settings,
        pool: CoroutinePool,
        worker: str,
        queues: list[str],
        residents: Residents | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._worker = worker
        self._queues = queues
        self._residents = residents
        self._runner = AsyncRunner(settings, what="worker")
        self._ledger = JobLedger(settings)
        self._workers = Workers(settings)
        self._models = Models(settings)
        self._told: tuple[float, list[ModelInfo]] = (-math.inf, [])
        self._running: set[str] = set()
        self._has_left = False
        self._well_since = math.inf
        self._clock_ahead_s = math.nan  # Redis's clock minus the monotonic one
        self._parent = os.getppid()
        self._orphan_since = time.monotonic()
        self.outage = ""  # why Redis renews no lease
        self.beaten_at = time.monotonic()  # when Celery's loop last touched the heartbeat
        self.qos: Any = None  # kombu's record of unacknowledged messages, one per connection

    async def keep(self) -> None:
        """Renew for ever, the first time at once, which announces the worker."""
        said = Lasting(log, "leases are not renewed: %s", "leases are renewed again")
        while True:
            try:
                self._end_orphan()
                await self.renew()
                self.outage = ""
                said.note_success()
            except BrokerUnavailable as e:
                self._well_since = math.inf
                self.outage = str(e) if may_pass(e) else ""
                said.warn(e)
            except Exception:  # without renewals every job of the worker would run twice
                self.outage = ""
                log.exception("internal error; leases are renewed again in a moment")
            await asyncio.sleep(self._settings.sweep_s)

    async def close(self) -> None:
        await self._runner.close()

    def _end_orphan(self) -> None:
        """Kill the process group once its supervisor has been dead for a lease.

        Without supervisor and model host no job can finish, and a child that never ends would keep
        its jobs from other workers.
        """
        if self._settings.heartbeat_file is None or os.getppid() == self._parent:
            self._orphan_since = time.monotonic()
        elif time.monotonic() - self._orphan_since > self._settings.lease_s:
            log.critical(
                "the supervisor has died and the running jobs do not end: killing this worker"
            )
            os.killpg(os.getpgrp(), signal.SIGKILL)

    async def keep_beating(self) -> None:
        """Touch the heartbeat while Celery's loop cannot, for ever."""
        while True:
            self.beat_instead()
            await asyncio.sleep(BEAT_S)

    def beat_instead(self) -> None:
        """Touch the heartbeat of a worker that drains, or whose Celery waits for an absent Redis.

        One that consumes nothing while Redis answers this loop is deaf, and has no heartbeat.
        """
        if drains():
            _touch(self._settings.heartbeat_file)
        elif self.outage and time.monotonic() - self.beaten_at >= SILENT_S:
            _touch(self._settings.heartbeat_file, self.outage)

    def may_sweep(self, redis_s: float) -> bool:
        """Return whether all live workers could renew their leases since Redis was away.

        Otherwise their running jobs would be redelivered, and the outage counted as an attempt. The
        same holds after Redis's clock, which shows `redis_s`, was set.
        """
        self._note_clock(redis_s)
        in_s = self._settings.sweep_s + self._settings.connect_timeout_s
        return time.monotonic() - self._well_since > in_s

    def _note_clock(self, redis_s: float) -> None:
        """Note whether Redis's clock was set. Thread-safe."""
        now = time.monotonic()
        ahead_s = redis_s - now
        if abs(ahead_s - self._clock_ahead_s) > self._settings.sweep_s:
            log.warning("Redis's clock jumped by %.0f s", ahead_s - self._clock_ahead_s)
            self._well_since = max(self._well_since, now)
        self._clock_ahead_s = ahead_s

    async def renew(self) -> None:
        running = {job_id for job_id in self._pool.running_ids if is_job_id(job_id)}
        await asyncio.gather(
            self._runner.run(self._renew_messages()),
            self._runner.run(self._ledger.renew(self._worker, running)),
            self._runner.run(self._ledger.abandon(self._worker, self._running - running)),
            self._announce(),
        )
        self._running = running
        await self._runner.run(self._note_well())

    @call
    def _note_well(self) -> Steps[None]:
        """Note that Redis accepts writes, and whether its clock was set."""
        seconds, micros = yield redis.time()
        self._note_clock(seconds + micros / 1e6)
        if self._well_since == math.inf:
            self._well_since = time.monotonic()

    @call
    def _renew_messages(self) -> Steps[None]:
        tags = {*self._pool.lanes.tags, *list(self.qos._delivered)}
        if tags:
            seconds, micros = yield redis.time()
            now = seconds + micros / 1e6
            key = celery_prefix(self._settings.key_prefix) + self.qos.unacked_index_key
            yield redis.zadd(key, dict.fromkeys(tags, now), xx=True)

    async def _announce(self) -> None:
        """Announce this worker as a consumer; remove it once it drains."""
        if not drains():
            said = self._said()
            await self._tell_models()  # first: readers fetch the params of a model that is loaded
            waits_for = self._pool.lanes.gate.why
            await self._runner.run(
                self._workers.announce(self._worker, waits_for=waits_for, **said)
            )
        elif not self._has_left:
            await self._runner.run(self._workers.leave(self._worker))
            self._has_left = True

    def _said(self) -> dict[str, Any]:
        residents = self._residents
        if residents is None:
            return {"queues": self._queues, **served_alone(self._settings.host_socket)}
        loaded = residents.loaded
        failures = {name: one.model_dump() for name, one in residents.failures.items()}
        first = {"model": loaded[0].name, "bundle_version": loaded[0].version} if loaded else {}
        plain = [queue for queue in self._queues if queue == self._settings.plain_queue]
        return {
            "queues": [*sorted(residents.taken), *plain],
            "device": residents.device,
            **first,
            "models": [model.name for model in loaded],
            "loading": residents.loading,
            "unloaded": residents.unloaded,
            "failures": failures,
        }

    async def _tell_models(self) -> None:
        """Publish the models when they have changed, and every `TELL_MODELS_S`."""
        told_at, told = self._told
        models = [] if self._residents is None else self._residents.models
        if models != told or time.monotonic() - told_at > TELL_MODELS_S:
            await self._runner.run(self._models.announce(models))
            self._told = time.monotonic(), models


class LeaseStep(bootsteps.StartStopStep):
    """The Celery step that renews a worker's leases and sweeps for those of dead workers."""

    requires = (ModelsStep,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timers: list[Any] = []
        self._lease: Lease | None = None
        self._strays = Strays(consumer.pool)
        self._on_tick: Callable[[], None] | None = None
        self._beat_due = 0.0

    def start(self, consumer: Any) -> None:
        """Start the timers; called again after each lost connection."""
        settings: Settings = consumer.app.settings
        channel = consumer.task_consumer.channel
        if self._lease is None:
            self._lease = self._begin(settings, consumer, channel.qos)
        self._lease.qos = channel.qos
        give_back(settings, consumer.hostname, consumer.app.runner, channel.qos.unacked_index_key)
        every = consumer.timer.call_repeatedly
        self._timers = [
            every(settings.sweep_s, self._sweep, (channel.qos,)),
            every(settings.sweep_s, self._strays.end, (channel, consumer.timer)),
            every(BEAT_S, self._beat, (channel, consumer.pool, settings.heartbeat_file)),
        ]
        # The heartbeat must not wait behind thousands of timers that are due.
        self._on_tick = partial(self._beat, channel, consumer.pool, settings.heartbeat_file)
        consumer.hub.on_tick.add(self._on_tick)

    def _begin(self, settings: Settings, consumer: Any, qos: Any) -> Lease:
        residents: Residents | None = consumer.residents
        queues = list(consumer.app.amqp.queues.consume_from)
        if residents is not None:
            queues = [*residents.all_queues, *(q for q in queues if q == settings.plain_queue)]
        lease = Lease(settings, consumer.pool, consumer.hostname, queues, residents)
        lease.qos = qos
        consumer.pool.loop.at_end(lease.close)
        consumer.pool.loop.begin(lease.keep())
        consumer.pool.loop.begin(lease.keep_beating())
        Recovery(settings, queues, consumer.app.runner).start()
        return lease

    def _sweep(self, qos: Any) -> None:
        if self._lease is not None:
            qos.sweep(MAX_AT_ONCE, self._lease.may_sweep)

    def _beat(self, channel: Any, pool: CoroutinePool, file: Path | None) -> None:
        if time.monotonic() >= self._beat_due:
            self._beat_due = time.monotonic() + BEAT_S
            lease = self._lease
            if lease is not None and beat(channel, pool, file, lease.outage):
                lease.beaten_at = time.monotonic()

    def stop(self, consumer: Any) -> None:
        consumer.hub.on_tick.discard(self._on_tick)
        for timer in self._timers:
            timer.cancel()


def beat(channel: Any, pool: CoroutinePool, file: Path | None, outage: str = "") -> bool:
    """Touch the heartbeat file if both loops turn, messages are consumed and due jobs run.

    Return whether that is so. `outage` is why no lease is renewed: a Redis that is full delivers
    messages, and refuses to note them.
    """
    now = time.monotonic()
    is_asked = channel.has_room and channel.active_queues  # there are no queues between two models
    takes = now - channel.shared.polled_at < SILENT_S or not is_asked
    turns = now - pool.loop.turned_at < SILENT_S
    hears = channel.connection.cycle.silent_s < channel.health_check_interval + MUTE_S
    is_well = takes and turns and hears and pool.goes_on()
    if is_well:
        _touch(file, pool.lanes.gate.why or channel.refusal or outage)
    return is_well


def _touch(file: Path | None, waits_for: str = "") -> None:
    """Touch the heartbeat file, if its folder is there.

    After a supervisor has died, the next one on the machine removes its folder.
    """
    if file is not None:
        with suppress(OSError):
            heartbeat.touch(file, waits_for)
