"""The lease: a worker's renewed claim on the messages in its hands and on the jobs it runs.

A message that was taken stays in kombu's `unacked_index`, scored by when; any worker's sweep
gives out again what has an old score. Here the worker scores its own anew, so that a job may
run for hours, and a dead worker's messages come back within a lease. The ledger keeps a
lease for each running attempt, by which a second delivery tells a live one from a dead one.

The same loop shows from outside that this worker consumes: it touches a file. With
`worker/transport.py` this is where kombu's inside is known; a test fails when that changes.
"""

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from celery import bootsteps
from celery.worker import state

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import celery_prefix, is_job_id
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from worker.devices import served
from worker.recovery import Recovery

log = logging.getLogger(__name__)

MOST_AT_ONCE = 200  # messages that one sweep gives out again, before the worker's loop goes on
SILENT_S = 5.0  # Redis answers a worker that consumes every second


class Keeper(Thread):
    """Renews every lease of this worker; a thread, because a draining worker has no event loop."""

    def __init__(self, settings: Settings, worker: str, queues: list[str]) -> None:
        super().__init__(name="lease", daemon=True)
        self._queues = queues
        self._settings = settings
        self._worker = worker
        runner = Runner(settings)
        self._run = runner.run
        self._redis: Any = runner.redis
        self._ledger = JobLedger(settings)
        self._workers = Workers(settings)
        self._running: set[str] = set()
        self._has_left = False
        self._parent = os.getppid()
        self._orphan_since = time.monotonic()
        self.qos: Any = None  # kombu's record of unacknowledged messages; one a connection

    def run(self) -> None:
        never = Event()
        wait_s = 0.0  # at once, so that it is known who consumes
        while not never.wait(wait_s):
            wait_s = self._settings.sweep_s
            self._end_orphan()
            try:
                self._beat_while_draining()
                with broker_errors(self._settings):
                    self._renew_messages()
                self._renew_attempts()
                self._announce()
            except BrokerUnavailable as e:
                log.warning("leases are not renewed: %s", e)
            except Exception:  # without this thread every job of the worker would run twice
                log.exception("an error of ours; leases are renewed again in a moment")

    def _end_orphan(self) -> None:
        """Without its supervisor and its model host this worker can finish nothing: let it go.

        Its jobs must not be kept from others by a child that never ends.
        """
        if self._settings.heartbeat_file is None or os.getppid() == self._parent:
            self._orphan_since = time.monotonic()
        elif time.monotonic() - self._orphan_since > self._settings.lease_s:
            log.critical("the supervisor has died, and what runs does not end: killing it")
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def _beat_while_draining(self) -> None:
        """A worker that finishes what it has consumes no more, and must not be killed for it."""
        if _drains():
            _touch(self._settings.heartbeat_file)

    def _announce(self) -> None:
        """Say that this worker consumes; while it drains, nothing that waits is for it."""
        if not _drains():
            said = served(self._settings.host_socket)
            self._run(self._workers.announce(self._worker, queues=self._queues, **said))
        elif not self._has_left:
            self._run(self._workers.leave(self._worker))
            self._has_left = True

    def _renew_messages(self) -> None:
        tags = list(self.qos._delivered)
        if tags:
            now = time.time()  # kombu scores by this machine's clock too
            key = celery_prefix(self._settings.key_prefix) + self.qos.unacked_index_key
            self._redis.zadd(key, dict.fromkeys(tags, now), xx=True)

    def _renew_attempts(self) -> None:
        """Keep the jobs that run; let go at once of those whose process has died."""
        running = {r.id for r in tuple(state.active_requests) if is_job_id(r.id)}
        self._run(self._ledger.renew(self._worker, running))
        self._run(self._ledger.abandon(self._worker, self._running - running))
        self._running = running


def _drains() -> bool:
    return state.should_stop is not None


class LeaseStep(bootsteps.StartStopStep):
    """Keeps the leases of a consumer's connection, and sweeps for those of dead workers."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    keeper: Keeper | None = None

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        settings: Settings = consumer.app.settings
        channel = consumer.task_consumer.channel
        if LeaseStep.keeper is None:
            queues = [queue.name for queue in consumer.task_consumer.queues]
            LeaseStep.keeper = Keeper(settings, consumer.hostname, queues)
            LeaseStep.keeper.qos = channel.qos
            LeaseStep.keeper.start()
            Recovery(settings, queues).start()
        LeaseStep.keeper.qos = channel.qos
        sweep = {"num": MOST_AT_ONCE, "interval": 1}
        every = consumer.timer.call_repeatedly
        self._timers = [
            every(settings.sweep_s, channel.qos.restore_visible, kwargs=sweep),
            every(1.0, beat, (channel, settings.heartbeat_file)),
        ]

    def stop(self, consumer: Any) -> None:
        for timer in self._timers:
            timer.cancel()


def beat(channel: Any, file: Path | None) -> None:
    """Touch the heartbeat file, unless this loop turns without taking what waits for it."""
    takes = time.monotonic() - type(channel).polled_at < SILENT_S
    is_full = not channel.qos.can_consume() and bool(state.reserved_requests)
    if takes or is_full:
        _touch(file)


def _touch(file: Path | None) -> None:
    """Nobody looks at the heartbeat of a worker whose supervisor has died: its folder may be gone.

    The next supervisor of the machine removes it.
    """
    if file is not None:
        with suppress(FileNotFoundError):
            file.touch()
