"""Meddlers: they cancel jobs, repeat messages and put garbage into the queues."""

import random
from dataclasses import dataclass
from threading import Event
from typing import Any

from redis.exceptions import RedisError

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.connection import connect
from crossmodal.jobs.message import message_of
from crossmodal.jobs.params import parse_params
from crossmodal.jobs.record import JobState
from crossmodal.kinds.queue import Queue
from tests.chaos.audit import Accepted, queues_of
from tests.chaos.world import World
from tests.ledgers import Ledger


@dataclass
class Meddlers:
    """A meddler that does one such thing after another, until the storm is over."""

    world: World
    seed: int
    accepted: Accepted
    over: Event

    def meddle(self) -> None:
        rng = random.Random(f"{self.seed}/meddler")
        settings = self.world.settings()
        ledger, redis = Ledger(settings), connect(settings, decode=False)
        deeds = [self._cancel, self._cancel, self._repeat, self._litter]
        while not self.over.wait(rng.uniform(0.5, 3)):
            try:
                rng.choice(deeds)(ledger, redis, rng)
            except (CrossmodalError, RedisError):
                self.accepted.counts["meddling refused"] += 1

    def _a_job(self, rng: random.Random, recent: int) -> str | None:
        with self.accepted.lock:
            known = sorted(self.accepted.jobs)[-recent:]  # ids sort by their time
        return rng.choice(known) if known else None

    def _cancel(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        job_id = self._a_job(rng, recent=5)
        if job_id is not None and ledger.cancel(job_id) is JobState.CANCELED:
            self.accepted.canceled.add(job_id)
            self.accepted.counts["canceled"] += 1

    def _repeat(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        job_id = self._a_job(rng, recent=200)
        if job_id is None:
            return
        job = ledger.get(job_id)
        model = Queue.parse(job.queue).model
        message = message_of(job.id, parse_params(job.task, job.params), model)
        redis.lpush(job.queue, message, message)
        self.accepted.counts["messages repeated"] += 2

    def _litter(self, ledger: Ledger, redis: Any, rng: random.Random) -> None:
        redis.lpush(
            rng.choice(queues_of(self.world.models[1:])), rng.randbytes(rng.randrange(1, 2_000))
        )
        self.accepted.garbage += 1
