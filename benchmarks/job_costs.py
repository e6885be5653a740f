"""The cost of one job to each part beside the device: Redis, object store, Celery, gateway.

Real jobs run on a real stack; the counters of each part are read before and after. The idle load
of the parts is measured first, and subtracted.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
from efficiency import PROMPTS
from harness import median
from prometheus_client.parser import text_string_to_metric_families
from stack import START_S, Running, real_stack

from crossmodal.kinds.task import Task
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until

JOBS, CAPTIONS, ITEMS, REQUESTS = 400, 200, 2_048, 200
IDLE_S = 15.0
CALLERS = 8

Counts = dict[str, float]


class Meter:
    """A reader of all counters of a stack."""

    def __init__(self, running: Running, metrics_port: int) -> None:
        self._redis: Any = running.client.redis
        self._url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._storage = running.folder / "storage"
        self._supervisor = next(
            child for child in psutil.Process().children() if "worker" in child.cmdline()
        )

    def read(self) -> Counts:
        counts = self._of_redis() | self._of_store() | self._of_processes()
        return counts | {"at": time.monotonic()}

    def clients(self) -> int:
        """Return the number of connections to Redis."""
        return int(self._redis.info("clients")["connected_clients"])

    def _of_redis(self) -> Counts:
        cpu, stats = self._redis.info("cpu"), self._redis.info("stats")
        calls = self._redis.info("commandstats")
        return {
            "redis_cpu_s": cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"],
            "redis_calls": sum(c["calls"] for name, c in calls.items() if "info" not in name),
            "redis_bytes": stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
            "redis_memory": self._redis.info("memory")["used_memory"],
        }

    def _of_store(self) -> Counts:
        with urlopen(self._url, timeout=10) as answer:
            families = list(text_string_to_metric_families(str(answer.read(), "utf-8")))
        found = dict.fromkeys(("store_put", "store_get"), 0.0)
        for sample in (s for f in families for s in f.samples):
            operation = f"store_{sample.labels.get('operation')}"
            if sample.name == "crossmodal_storage_operations_total" and operation in found:
                found[operation] += sample.value
        files = [file.stat().st_size for file in self._storage.rglob("*") if file.is_file()]
        return found | {"store_bytes": sum(files)}

    def _of_processes(self) -> Counts:
        found = {"celery_cpu_s": 0.0, "host_cpu_s": 0.0}
        for child in self._supervisor.children():
            part = "celery_cpu_s" if "worker.celery" in child.cmdline() else "host_cpu_s"
            below = child.children(recursive=True)  # decoders, or forks of a model host
            found[part] += sum(map(_cpu_s, (child, *below)))
        return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def per_job(meter: Meter, idle: Counts, jobs: int, run: Callable[[], None]) -> Counts:
    """Return each counter's change per job, without the idle load."""
    before, submitting = meter.read(), time.process_time()
    run()
    client_s = time.process_time() - submitting
    after = meter.read()
    took_s = after["at"] - before["at"]
    moved = {name: after[name] - before[name] - idle.get(name, 0.0) * took_s for name in before}
    found = {name: max(0.0, value) / jobs for name, value in moved.items() if name != "at"}
    return found | {"client_cpu_s": client_s / jobs, "rate": jobs / took_s}


def at_rest(meter: Meter) -> Counts:
    """Return each counter's idle change per second; memory and the store are left out."""
    before = meter.read()
    time.sleep(IDLE_S)
    after = meter.read()
    span_s = after["at"] - before["at"]
    kinds = ("redis_cpu_s", "redis_calls", "redis_bytes", "celery_cpu_s")
    return {name: (after[name] - before[name]) / span_s for name in kinds}


def measure() -> dict[str, Any]:
    """Measure the costs of each task, an idle worker, and a gateway request."""
    port = free_port()
    os.environ["CROSSMODAL_METRICS_PORT"] = str(port)
    with real_stack("cpu") as running:
        del os.environ["CROSSMODAL_METRICS_PORT"]
        client, meter = running.client, Meter(running, port)
        _draw(running, 64)  # warm up: open connections, load scripts
        png = client.read(client.txt2img(PROMPTS[0], seed=1).result(60).images[0])
        idle, alone = at_rest(meter), meter.clients() - _own_clients(client.redis)
        found: dict[str, Any] = {
            Task("txt2img"): per_job(meter, idle, JOBS, lambda: _draw(running, JOBS)),
            Task("img2txt"): per_job(meter, idle, CAPTIONS, lambda: _describe(running, png)),
        }
        messages = client.queue(Task("txt2img.bulk")).submitted
        prompts = [PROMPTS[i % len(PROMPTS)] for i in range(ITEMS)]
        bulk = per_job(meter, idle, ITEMS, lambda: _drain(client.map_txt2img(prompts)))
        messages = client.queue(Task("txt2img.bulk")).submitted - messages
        found[Task("txt2img.bulk")] = bulk | {"items_a_message": ITEMS / messages}
        with _gateway(running.folder) as (url, process):
            gateway_cpu_s = _post(url, process)
    return {"jobs": found, "idle": idle, "connections": alone, "gateway_cpu_s": gateway_cpu_s}


def _own_clients(redis: Any) -> int:
    """Return the number of this process's connections to Redis."""
    return sum(1 for c in redis.client_list() if c["addr"] in _own_ports())


def _own_ports() -> set[str]:
    return {f"{c.laddr.ip}:{c.laddr.port}" for c in psutil.Process().net_connections() if c.laddr}


def _draw(running: Running, count: int) -> None:
    jobs = [running.client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i) for i in range(count)]
    _drain(running.client.as_completed(jobs))


def _describe(running: Running, png: bytes) -> None:
    jobs = [running.client.img2txt(png) for _ in range(CAPTIONS)]
    _drain(running.client.as_completed(jobs))


def _drain(results: Iterator[Any]) -> None:
    for _ in results:
        pass


@contextmanager
def _gateway(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    argv = [sys.executable, "-m", "crossmodal.cli", "gateway", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with (folder / "gateway.log").open("wb") as log:
        child = Child("gateway", argv, output=log)
        child.start()
        try:
            if not wait_until(lambda: _is_up(url), START_S):
                raise SystemExit("the gateway did not start")
            yield url, psutil.Process(child.pid)
        finally:
            child.stop(15)


def _is_up(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False


def _post(url: str, process: psutil.Process) -> float:
    """Return the gateway's CPU seconds per request that submits a job and waits for it."""

    def one(i: int) -> int:
        body = f'{{"task": "txt2img", "prompt": "{PROMPTS[i % len(PROMPTS)]}", "seed": {i}}}'
        headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
        with urlopen(Request(f"{url}/v1/jobs", body.encode(), headers), timeout=60) as answer:
            answer.read()
            return int(answer.status)

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(one, range(CALLERS)))
        rounds = []
        for _ in range(3):
            before = _cpu_s(process)
            statuses = set(callers.map(one, range(REQUESTS)))
            rounds.append((_cpu_s(process) - before) / REQUESTS)
    if statuses != {200}:
        raise SystemExit(f"the gateway answered {statuses}")
    return median(rounds)
