"""Traffic beside single jobs in a storm: bulk, and messages of plain Celery.

A bulk batch is sent again with its id until all its results are there.
"""

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.names import celery_prefix
from crossmodal.jobs.record import ItemResult
from producer import Client
from tests.chaos.audit import PREFIX, STRUCK_DOWN, Accepted
from tests.chaos.world import World
from tests.sentinels import MASTER, SENTINEL_PASSWORD

PROMPT = "a small red circle on a white background"
BULK_ITEMS = 60


@dataclass
class Traffic:
    """What was submitted, and what came back."""

    world: World
    seed: int
    accepted: Accepted
    over: Event
    bulk: dict[str, list[ItemResult]] = field(default_factory=dict)
    plain: dict[str, str | None] = field(default_factory=dict)  # ids of messages, and their models

    def send_bulk(self) -> None:
        """Send one batch after another; wait for the last even when the storm is over."""
        rng = random.Random(f"{self.seed}/bulk")
        with Client(self.world.settings()) as client:
            number = 0
            while not self.over.wait(rng.uniform(2, 6)):
                batch_id = f"bulk-{self.seed}-{number}"
                self.bulk[batch_id] = self._whole(client, batch_id, self.world.a_model(rng))
                number += 1

    def _whole(self, client: Client, batch_id: str, model: str | None) -> list[ItemResult]:
        prompts = [PROMPT] * BULK_ITEMS
        while True:
            try:
                return list(client.map_txt2img(prompts, seed=0, batch_id=batch_id, model=model))
            except CrossmodalError as e:
                if not e.retryable:
                    raise
                self.accepted.counts[f"bulk refused: {e.code}"] += 1
                self.over.wait(1.0)

    def send_plain(self) -> None:
        """Send messages of plain Celery, to its own queue and to that of their kind."""
        rng = random.Random(f"{self.seed}/plain")
        with plain_celery(self.world) as app:
            while not self.over.wait(rng.uniform(0.5, 3)):
                named, queue = self.world.a_model(rng), rng.choice(["celery", "txt2img"])
                given = {"prompt": PROMPT} | ({} if named is None else {"model": named})
                job_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
                self._send_one(app, job_id, given, queue)

    def _send_one(self, app: Celery, job_id: str, given: dict[str, str], queue: str) -> None:
        """Send until the broker accepts it; several messages with one id make one job."""
        while not self.over.is_set():
            try:
                with app.connection_for_write() as connection:
                    app.send_task(
                        "crossmodal.txt2img",
                        kwargs=given,
                        task_id=job_id,
                        queue=queue,
                        connection=connection,
                        retry=False,
                    )
            except (OperationalError, RedisError, OSError):
                self.accepted.counts["plain messages refused"] += 1
                self.over.wait(0.5)
            else:
                self.plain[job_id] = given.get("model")
                return

    def breaches(self) -> Iterator[str]:
        for batch_id, results in self.bulk.items():
            yield from of_items(batch_id, [r.index for r in results], BULK_ITEMS)
            yield from (
                f"item {r.index} of {batch_id} has failed: {r.failure}"
                for r in results
                if r.failure is not None and r.failure.code not in STRUCK_DOWN
            )


@contextmanager
def plain_celery(world: World) -> Iterator[Celery]:
    """Yield a Celery application that knows only names and the broker."""
    with Celery(broker=world.redis.url) as app:
        app.conf.broker_transport_options = {
            "global_keyprefix": celery_prefix(PREFIX),
            "master_name": MASTER,
            "sentinel_kwargs": {"password": SENTINEL_PASSWORD},
        }
        yield app


def of_items(batch_id: str, indices: list[int], count: int) -> Iterator[str]:
    if sorted(indices) != list(range(count)):
        twice = [i for i, n in Counter(indices).items() if n > 1]
        yield f"{batch_id} has {len(set(indices))} of {count} items, {len(twice)} of them twice"
