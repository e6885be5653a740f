"""What goes on beside single jobs in a storm: bulk, and over HTTP jobs with webhooks and batches.

A batch is sent until all its results are there, by whatever means a caller has: a bulk batch again
under its id, a request again under its key. The receiver of webhooks fails every third post.
"""

import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

import httpx2
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from crossmodal.errors import BrokerUnavailable, StorageUnavailable
from crossmodal.jobs.names import celery_prefix
from crossmodal.jobs.record import ItemResult
from producer import Client
from tests.chaos.audit import PREFIX
from tests.chaos.world import World
from tests.receiver import Receiver
from tests.servers import user_url

PROMPT = "a small red circle on a white background"
BULK_ITEMS, LINES = 60, 12
RETRYABLE = (BrokerUnavailable, StorageUnavailable)
# What a message may end as whose worker or host the storm has killed in each of its attempts.
STRUCK_DOWN = {"worker_lost", "model_host_crashed"}


@dataclass
class Traffic:
    """What was asked for, and what came back."""

    world: World
    seed: int
    receiver: Receiver
    over: Event
    bulk: dict[str, list[ItemResult]] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    plain: dict[str, str | None] = field(default_factory=dict)  # ids of messages, and their models
    batches: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def send_bulk(self) -> None:
        """One batch after the other; the last is waited for also when the storm is over."""
        rng = random.Random(f"{self.seed}/bulk")
        with Client(self.world.settings()) as client:
            number = 0
            while not self.over.wait(rng.uniform(2, 6)):
                batch_id = f"bulk-{self.seed}-{number}"
                self.bulk[batch_id] = self._whole(client, batch_id, self.a_model(rng))
                number += 1

    def a_model(self, rng: random.Random) -> str | None:
        """One of them, or none."""
        return rng.choice([None, *self.world.models])

    def _whole(self, client: Client, batch_id: str, model: str | None) -> list[ItemResult]:
        prompts = [PROMPT] * BULK_ITEMS
        while True:
            try:
                return list(client.map_txt2img(prompts, seed=0, batch_id=batch_id, model=model))
            except RETRYABLE as e:
                self.counts[f"bulk refused: {e.code}"] += 1
                self.over.wait(1.0)

    def send_plain(self) -> None:
        """Messages of plain Celery, to its own queue and to that of their kind."""
        rng = random.Random(f"{self.seed}/plain")
        app = Celery(broker=user_url(self.world.redis_proxy.port))
        app.conf.broker_transport_options = {"global_keyprefix": celery_prefix(PREFIX)}
        while not self.over.wait(rng.uniform(0.5, 3)):
            named, queue = self.a_model(rng), rng.choice(["celery", "txt2img"])
            given = {"prompt": PROMPT} | ({} if named is None else {"model": named})
            self._send_one(app, str(uuid.UUID(int=rng.getrandbits(128), version=4)), given, queue)
        app.close()

    def _send_one(self, app: Celery, job_id: str, given: dict[str, str], queue: str) -> None:
        """Send until the broker has it; of several messages of an id there is one job."""
        while not self.over.is_set():
            try:
                with app.connection_for_write() as connection:
                    app.send_task("crossmodal.txt2img", kwargs=given, task_id=job_id, queue=queue,
                                  connection=connection, retry=False)  # fmt: skip
            except (OperationalError, RedisError, OSError):
                self.counts["plain messages refused"] += 1
                self.over.wait(0.5)
            else:
                self.plain[job_id] = given.get("model")
                return

    def call_gateway(self) -> None:
        """Jobs with a webhook, and every now and then a batch."""
        rng = random.Random(f"{self.seed}/gateway")
        with httpx2.Client(base_url=self.world.gateway_url, timeout=30) as http:
            number = 0
            while not self.over.wait(rng.uniform(0.5, 2)):
                try:
                    if number % 8 == 7:
                        self._post_batch(http, self.a_model(rng))
                    else:
                        self._post_job(http, f"http-{self.seed}-{number}", self.a_model(rng))
                except (httpx2.HTTPError, OSError):
                    self.counts["gateway away"] += 1
                    continue
                number += 1

    def _post_job(self, http: httpx2.Client, key: str, model: str | None) -> None:
        priority = int(key.rpartition("-")[2]) % 3 - 1
        body = {"task": "txt2img", "webhook_url": self.receiver.url, "priority": priority}
        body |= _prompt(model)
        answer = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
        if answer.status_code == 202:
            self.jobs.add(answer.json()["id"])
        self.counts[f"POST /v1/jobs: {answer.status_code}"] += 1

    def _post_batch(self, http: httpx2.Client, model: str | None) -> None:
        line: dict[str, Any] = {"url": "/v1/txt2img", "body": _prompt(model)}
        text = "".join(json.dumps(line | {"custom_id": str(i)}) + "\n" for i in range(LINES))
        kind = {"Content-Type": "application/jsonl"}
        answer = http.post("/v1/batches", content=text, headers=kind)
        if answer.status_code == 202:
            self.batches.add(answer.json()["id"])
        self.counts[f"POST /v1/batches: {answer.status_code}"] += 1

    # -- what must have become of it ------------------------------------------------------

    def unsettled(self) -> Iterator[str]:
        """What is still on its way; must become nothing soon after the storm."""
        try:
            with httpx2.Client(base_url=self.world.gateway_url, timeout=30) as http:
                for batch_id in self.batches:
                    status = http.get(f"/v1/batches/{batch_id}").json().get("status")
                    if status != "completed":
                        yield f"the HTTP batch {batch_id} is {status}"
        except httpx2.HTTPError as e:
            yield f"the gateway does not answer: {e!r}"
        with Client(self.world.settings(through_proxy=False)) as client:
            if pending := client.webhooks.counts()["pending"]:
                yield f"{pending} webhooks are pending"

    def breaches(self) -> Iterator[str]:
        for batch_id, results in self.bulk.items():
            yield from _of_items(batch_id, [r.index for r in results], BULK_ITEMS)
            yield from (
                f"item {r.index} of {batch_id} has failed: {r.failure}"
                for r in results
                if r.failure is not None and r.failure.code not in STRUCK_DOWN
            )
        with httpx2.Client(base_url=self.world.gateway_url, timeout=60) as http:
            for batch_id in self.batches:
                yield from self._of_output(http, batch_id)
        with Client(self.world.settings(through_proxy=False)) as client:
            yield from self._of_webhooks(client)

    def _of_output(self, http: httpx2.Client, batch_id: str) -> Iterator[str]:
        lines: list[dict[str, Any]] = [
            json.loads(line)
            for line in http.get(f"/v1/batches/{batch_id}/output").text.splitlines()
        ]
        yield from _of_items(batch_id, [int(line["custom_id"]) for line in lines], LINES)
        for line in lines:
            error = line.get("error")
            if error is not None and error["code"] not in STRUCK_DOWN:
                yield f"line {line['custom_id']} of {batch_id} has failed: {error}"

    def _of_webhooks(self, client: Client) -> Iterator[str]:
        counts = client.webhooks.counts()
        if counts["failed"]:
            yield f"{counts['failed']} webhooks were given up"
        told = set(self.receiver.jobs())
        for job_id in self.jobs - told:
            yield f"nobody was told of {job_id}, which is {client.status(job_id).state}"


def _prompt(model: str | None) -> dict[str, str]:
    return {"prompt": PROMPT} | ({} if model is None else {"model": model})


def _of_items(batch_id: str, indices: list[int], count: int) -> Iterator[str]:
    if sorted(indices) != list(range(count)):
        twice = [i for i, n in Counter(indices).items() if n > 1]
        yield f"{batch_id} has {len(set(indices))} of {count} items, {len(twice)} of them twice"
