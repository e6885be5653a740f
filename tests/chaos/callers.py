"""Two API keys that call the gateway: jobs with a webhook, batches, and the other key's data.

A request is sent again with its key until it is accepted. The receiver of webhooks fails every
third post.
"""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import httpx2

from producer import Client
from tests.chaos.audit import STRUCK_DOWN, Accepted
from tests.chaos.traffic import PROMPT, of_items
from tests.chaos.world import World
from tests.receiver import Receiver

LINES = 12
OUTAGES = (429, 500, 502, 503, 504)  # statuses that reveal nothing of what is requested


@dataclass
class Callers:
    """What each key has requested: the number of the key by the id."""

    world: World
    seed: int
    accepted: Accepted
    over: Event
    receiver: Receiver
    jobs: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # answers that are the gateway's fault

    def call(self) -> None:
        rng = random.Random(f"{self.seed}/gateway")
        with ExitStack() as stack:
            clients = [stack.enter_context(self._as(key)) for key in range(2)]
            number = 0
            while not self.over.wait(rng.uniform(0.5, 2)):
                key = rng.randrange(2)
                try:
                    if number % 8 == 7:
                        self._post_batch(clients[key], key, self.world.a_model(rng))
                    else:
                        name = f"http-{self.seed}-{number}"
                        self._post_job(clients[key], key, name, self.world.a_model(rng))
                    self._pry(clients[1 - key], key, rng)
                except (httpx2.HTTPError, OSError):
                    self.accepted.counts["gateway away"] += 1
                    continue
                number += 1

    def _as(self, key: int) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.world.tokens[key]}"}
        return httpx2.Client(
            base_url=self.world.gateway_url, headers=headers, timeout=30, follow_redirects=True
        )

    def _post_job(self, http: httpx2.Client, key: int, name: str, model: str | None) -> None:
        priority = int(name.rpartition("-")[2]) % 3 - 1
        body = {"task": "txt2img", "webhook_url": self.receiver.url, "priority": priority}
        body |= _prompt(model)
        answer = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": name})
        self._note(answer, "POST /v1/jobs", self.jobs, key)

    def _post_batch(self, http: httpx2.Client, key: int, model: str | None) -> None:
        line: dict[str, Any] = {"url": "/v1/txt2img", "body": _prompt(model)}
        text = "".join(json.dumps(line | {"custom_id": str(i)}) + "\n" for i in range(LINES))
        kind = {"Content-Type": "application/jsonl"}
        answer = http.post("/v1/batches", content=text, headers=kind)
        self._note(answer, "POST /v1/batches", self.batches, key)

    def _note(self, answer: httpx2.Response, what: str, accepted: dict[str, int], key: int) -> None:
        self.accepted.counts[f"{what}: {answer.status_code}"] += 1
        if answer.status_code == 202:
            accepted[answer.json()["id"]] = key
        elif answer.status_code != 503:
            self.faults.append(f"{what}: {answer.status_code} {answer.text[:200]}")

    def _pry(self, other: httpx2.Client, key: int, rng: random.Random) -> None:
        """Request something of one key with the other one."""
        mine = [f"/v1/jobs/{i}" for i, owner in self.jobs.items() if owner == key][-20:]
        mine += [f"{path}/result" for path in mine]
        mine += [f"/v1/blobs/results/{path.split('/')[3]}/0.png" for path in mine]
        mine += [f"/v1/batches/{i}" for i, owner in self.batches.items() if owner == key]
        if not mine:
            return
        path = rng.choice(mine)
        status = other.get(path).status_code
        self.accepted.counts["looks at another's"] += 1
        if status != 404 and status not in OUTAGES:
            self.leaks.append(f"{path} was answered {status} to another key")

    # -- checks of the outcome -----------------------------------------------------------

    def unsettled(self) -> Iterator[str]:
        """Yield what is still on its way; must become nothing soon after the storm."""
        try:
            for batch_id, key in self.batches.items():
                with self._as(key) as http:
                    status = http.get(f"/v1/batches/{batch_id}").json().get("status")
                if status != "completed":
                    yield f"the HTTP batch {batch_id} is {status}"
        except httpx2.HTTPError as e:
            yield f"the gateway does not answer: {e!r}"
        with Client(self.world.settings(through_proxy=False)) as client:
            if pending := client.webhooks.counts()["pending"]:
                yield f"{pending} webhooks are pending"

    def breaches(self) -> Iterator[str]:
        yield from self.unsettled()
        yield from (f"leak: {leak}" for leak in self.leaks)
        yield from (f"gateway: {fault}" for fault in self.faults)
        for batch_id, key in self.batches.items():
            with self._as(key) as http, suppress(httpx2.HTTPError):
                yield from self._of_output(http, batch_id)
        yield from self._of_lists()
        with Client(self.world.settings(through_proxy=False)) as client:
            yield from self._of_webhooks(client)

    def _of_output(self, http: httpx2.Client, batch_id: str) -> Iterator[str]:
        lines: list[dict[str, Any]] = [
            json.loads(line)
            for line in http.get(f"/v1/batches/{batch_id}/output").text.splitlines()
        ]
        yield from of_items(batch_id, [int(line["custom_id"]) for line in lines], LINES)
        for line in lines:
            error = line.get("error")
            if error is not None and error["code"] not in STRUCK_DOWN:
                yield f"line {line['custom_id']} of {batch_id} has failed: {error}"

    def _of_lists(self) -> Iterator[str]:
        """Check that each key's list has all jobs of its own, and no others."""
        for key in range(2):
            listed, cursor = set[str](), dict[str, str]()
            with self._as(key) as http:
                while True:
                    query: dict[str, Any] = {"limit": 100, **cursor}
                    page = http.get("/v1/jobs", params=query).json()
                    listed |= {job["id"] for job in page["data"]}
                    if page["next_cursor"] is None:
                        break
                    cursor = {"cursor": page["next_cursor"]}
            own = {job_id for job_id, owner in self.jobs.items() if owner == key}
            yield from (
                f"leak: {i} is listed to another key" for i in self.jobs.keys() & listed - own
            )
            yield from (f"{i} is not listed to its key" for i in own - listed)

    def _of_webhooks(self, client: Client) -> Iterator[str]:
        counts = client.webhooks.counts()
        if counts["failed"]:
            yield f"{counts['failed']} webhooks were given up"
        told = set(self.receiver.jobs())
        for job_id in self.jobs.keys() - told:
            yield f"nobody was told of {job_id}, which is {client.status(job_id).state}"


def _prompt(model: str | None) -> dict[str, str]:
    return {"prompt": PROMPT} | ({} if model is None else {"model": model})
