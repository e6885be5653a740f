"""The lease: a worker's renewed claim on the messages in its hands and on the jobs it runs.

A message that was taken stays in kombu's `unacked_index`, scored by when; any worker's sweep
gives out again what has an old score. Here the worker scores its own anew, so that a job may
run for hours, and a dead worker's messages come back within a lease. The ledger keeps a
lease for each running attempt, by which a second delivery tells a live one from a dead one.

This is the one file that knows kombu's inside; a test fails when kombu changes it.
"""

import logging
import time
from threading import Event, Thread
from typing import Any

from celery import bootsteps
from celery.worker import state

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import is_job_id
from crossmodal.settings import Settings, load_settings

log = logging.getLogger(__name__)

MOST_AT_ONCE = 1_000  # messages that one sweep gives out again


class Keeper(Thread):
    """Renews every lease of this worker; a thread, because a draining worker has no event loop."""

    def __init__(self, settings: Settings, worker: str) -> None:
        super().__init__(name="lease", daemon=True)
        self._settings = settings
        self._worker = worker
        self._redis: Any = connect(settings)
        self._ledger = JobLedger(settings)
        self._running: set[str] = set()
        self.qos: Any = None  # kombu's record of unacknowledged messages; one a connection

    def run(self) -> None:
        never = Event()
        while not never.wait(self._settings.sweep_s):
            try:
                with broker_errors(self._settings):
                    self._renew_messages()
                self._renew_attempts()
            except BrokerUnavailable as e:
                log.warning("leases are not renewed: %s", e)

    def _renew_messages(self) -> None:
        tags = list(self.qos._delivered)
        if tags:
            now = time.time()  # kombu scores by this machine's clock too
            self._redis.zadd(self.qos.unacked_index_key, dict.fromkeys(tags, now), xx=True)

    def _renew_attempts(self) -> None:
        """Keep the jobs that run; let go at once of those whose process has died."""
        running = {r.id for r in tuple(state.active_requests) if is_job_id(r.id)}
        self._ledger.renew(self._worker, running)
        self._ledger.abandon(self._worker, self._running - running)
        self._running = running


class LeaseStep(bootsteps.StartStopStep):
    """Keeps the leases of a consumer's connection, and sweeps for those of dead workers."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    keeper: Keeper | None = None

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        settings = load_settings()
        qos = consumer.task_consumer.channel.qos
        if LeaseStep.keeper is None:
            LeaseStep.keeper = Keeper(settings, consumer.hostname)
            LeaseStep.keeper.qos = qos
            LeaseStep.keeper.start()
        LeaseStep.keeper.qos = qos
        sweep = {"num": MOST_AT_ONCE, "interval": 1}
        self._timer = consumer.timer.call_repeatedly(
            settings.sweep_s, qos.restore_visible, kwargs=sweep
        )

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
