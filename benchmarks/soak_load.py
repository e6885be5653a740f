"""A stack for the soak test, and a mixed load of all typical requests."""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
from stack import DRAIN_S, queue_server

from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.runners import Runner
from crossmodal.local.stack import GATEWAY_STOP_S, Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import python_module, wait_until
from crossmodal.settings import load_settings
from crossmodal.storage import open_storage
from producer import Client
from producer.commands.gc import Collector
from tests.chaos.submitters import PROMPTS, picture
from tests.receiver import Receiver, listening

CALLERS = 12  # threads; more than are busy at half load
PICTURES = 50
LINES = BULK = 16  # lines of a batch job, items of a bulk batch
CALIBRATION_S = 30.0
TIMEOUT_S = 120.0
RECENT = 500  # posts that the receiver keeps


@dataclass(frozen=True)
class Soaking:
    """A stack with a gateway that requires keys, a background process and a webhook receiver."""

    url: str
    token: str
    broker_url: str
    folder: Path
    receiver: Receiver
    kept_s: int

    @property
    def store(self) -> Path:
        return self.folder / "storage"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def http(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True
        )


@contextmanager
def soaking(kept_s: int) -> Iterator[Soaking]:
    """Run the stack with a retention of `kept_s`."""
    with ExitStack() as exits:
        folder, _ = exits.enter_context(queue_server())
        (folder / "tmp").mkdir()
        receiver = exits.enter_context(listening())
        env = {
            "TMPDIR": str(folder / "tmp"),
            "CROSSMODAL_RETENTION_S": str(kept_s),
            "CROSSMODAL_ALLOW_PRIVATE_URLS": "true",
        }
        os.environ["CROSSMODAL_RETENTION_S"] = str(kept_s)
        with Client(load_settings()) as client:
            _, token = client.keys.create("soak", per_second=10_000, burst=10_000)
        log = exits.enter_context((folder / "log").open("wb"))
        stack = exits.enter_context(Stack(env, log))
        stack.start_worker(["--devices", "cpu"], DRAIN_S, folder / "ready")
        stack.start_background()
        http_port = free_port()
        argv = python_module("crossmodal.cli", "gateway", "--port", str(http_port), "--keys")
        stack.start("gateway", argv, GATEWAY_STOP_S)
        stack.wait_ready(folder / "ready")
        url = f"http://127.0.0.1:{http_port}"
        assert wait_until(lambda: _answers(url), TIMEOUT_S)
        broker = os.environ["CELERY_BROKER_URL"]
        yield Soaking(url, token, broker, folder, receiver, kept_s)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


@dataclass
class Caller:
    """A caller whose methods each perform one action, to its end."""

    http: httpx2.Client
    client: Client
    hook: str
    rng: random.Random

    def draw(self) -> None:
        """Submit a job, wait for it, and fetch its picture."""
        answer = self._post({"Prefer": "wait=60"})
        image = answer.json()["result"]["images"][0]
        self.http.get(image["url"]).raise_for_status()

    def draw_and_be_told(self) -> None:
        self._post({}, webhook_url=self.hook, priority=self.rng.choice([-1, 0, 1]))

    def caption(self) -> None:
        self.client.img2txt(picture(self.rng.randrange(PICTURES))).result(timeout_s=TIMEOUT_S)

    def follow(self) -> None:
        """Submit a job, and read its events to their end."""
        job_id = self._post({}, count=2).json()["id"]
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            for line in stream.iter_lines():
                if line == "event: end":
                    break

    def be_refused(self) -> None:
        assert self.http.post("/v1/jobs", json={"task": "txt2img"}).status_code == 422
        assert self.http.get("/v1/jobs/nobody").status_code == 404
        self.http.get("/v1/jobs", params={"limit": 100}).raise_for_status()

    def send_batch(self) -> None:
        line = {"url": "/v1/txt2img", "body": {"prompt": PROMPTS[0]}}
        text = "".join(json.dumps(line | {"custom_id": str(i)}) + "\n" for i in range(LINES))
        kind = {"Content-Type": "application/jsonl"}
        answer = self.http.post("/v1/batches", content=text, headers=kind).raise_for_status()
        url = f"/v1/batches/{answer.json()['id']}"
        assert wait_until(
            lambda: self.http.get(url).json()["status"] == "completed", TIMEOUT_S, 0.5
        )
        assert len(self.http.get(f"{url}/output").text.splitlines()) == LINES

    def send_bulk(self) -> None:
        results = self.client.map_txt2img([self.rng.choice(PROMPTS) for _ in range(BULK)], seed=0)
        assert all(result.failure is None for result in results)

    def _post(self, headers: dict[str, str], **more: object) -> httpx2.Response:
        body = {"task": "txt2img", "prompt": self.rng.choice(PROMPTS), **more}
        return self.http.post("/v1/jobs", json=body, headers=headers).raise_for_status()


# Each action, its relative frequency, and how many requests it counts as.
DEEDS: list[tuple[Callable[[Caller], None], float, int]] = [
    (Caller.draw, 50, 1),
    (Caller.draw_and_be_told, 20, 1),
    (Caller.caption, 15, 1),
    (Caller.follow, 10, 1),
    (Caller.be_refused, 5, 1),
    (Caller.send_batch, 0.5, LINES),
    (Caller.send_bulk, 0.5, BULK),
]


class Load:
    """A load of requests at random times, `rate` per second on average, while entered."""

    def __init__(self, stack: Soaking, rate: float) -> None:
        self._stack = stack
        self._rate = rate
        self._over = threading.Event()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(CALLERS)]
        self._threads.append(threading.Thread(target=self._collect))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def counts(self) -> dict[str, int]:
        """Return the number of requests so far, by action."""
        with self._lock:
            self._stack.receiver.told[:-RECENT] = []
            return {f"count {name}": n for name, n in sorted(self._counts.items())}

    def _note(self, what: str, number: int = 1) -> None:
        with self._lock:
            self._counts[what] += number

    def _call(self, number: int) -> None:
        rng = random.Random(number)
        weights = [weight for _, weight, _ in DEEDS]
        of_one = sum(weight * jobs for _, weight, jobs in DEEDS) / sum(weights)
        with self._stack.http() as http, Client(load_settings()) as client:
            caller = Caller(http, client, self._stack.receiver.url, rng)
            begun, due_s = time.monotonic(), 0.0
            while not self._over.wait(max(0.0, begun + due_s - time.monotonic())):
                due_s += rng.expovariate(self._rate / CALLERS / of_one)
                [(deed, _, jobs)] = rng.choices(DEEDS, weights)
                try:
                    deed(caller)
                    self._note(deed.__name__.replace("_", " "), jobs)
                except Exception as e:  # noqa: BLE001 - the report counts any error
                    self._note(f"errors: {type(e).__name__}")

    def _collect(self) -> None:
        """Collect garbage, as an operator's timer does."""
        settings = load_settings()
        with Runner(settings) as runner:
            while not self._over.wait(self._stack.kept_s / 4):
                storage, kept_s = open_storage(settings), float(self._stack.kept_s)
                found = Collector(runner, JobLedger(settings), storage, kept_s, kept_s).run()
                self._note("blobs collected", found.removed)


def measured_rate(stack: Soaking) -> float:
    """Return requests per second at full load."""
    with Load(stack, rate=1e6) as load:
        time.sleep(CALIBRATION_S / 2)  # warm up
        before = _done(load.counts())
        time.sleep(CALIBRATION_S)
        return (_done(load.counts()) - before) / CALIBRATION_S


def _done(counts: dict[str, int]) -> int:
    return sum(n for name, n in counts.items() if "errors" not in name and "blobs" not in name)
