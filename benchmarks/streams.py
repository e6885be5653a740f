"""A thousand open event streams on one gateway process, while their jobs run.

    python benchmarks/streams.py [--streams 1000] [--json]

Jobs are submitted and followed while no worker runs; then one is started, and every stream gets
every event of its job. It measures the gateway's memory, and the delay from a job's end to its
last event.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.harness import Report, arguments, percentile
from benchmarks.stack import queue_server
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import wait_until
from crossmodal.settings import load_settings
from producer import Client

PROMPT = "a large red circle on a white background"
START_S = 60.0
DRAIN_S = 60.0


class Follower:
    """One event stream: the states it saw, and the delay of its last event."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_open = asyncio.Event()
        self.states: list[str] = []
        self.late_s: float | None = None

    async def follow(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /v1/jobs/{self.job_id}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        writer.write(f"{request}Connection: close\r\n\r\n".encode())
        event = ""
        while line := (await reader.readline()).decode().strip("\r\n"):
            continue  # skip the headers
        while raw := await reader.readline():
            line = raw.decode().rstrip()
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                self._take(event, json.loads(value))
        writer.close()

    def _take(self, event: str, data: dict[str, object]) -> None:
        self.is_open.set()
        if event == "state":
            self.states.append(str(data["state"]))
        elif event == "end":
            self.late_s = time.time() - float(str(data["finished_at"]))


def main() -> None:
    """Measure one round of a thousand jobs, print and save the results."""
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--streams", type=int, default=1_000)
    args = parser.parse_args()
    with queue_server() as (folder, _), (folder / "log").open("wb") as log, Stack({}, log) as stack:
        port = free_port()
        os.environ["CROSSMODAL_GATEWAY_PORT"] = str(port)
        stack.start_gateway()
        gateway = psutil.Process(stack.children[-1].pid)
        assert wait_until(lambda: _answers(port), START_S), "the gateway does not answer"
        with Client(load_settings()) as client:
            jobs = [client.txt2img(PROMPT, seed=i).id for i in range(args.streams)]
        figures = asyncio.run(_measure(jobs, port, gateway, stack, folder))
    _report(figures).finish(args.json)


async def _measure(
    jobs: list[str], port: int, gateway: psutil.Process, stack: Stack, folder: Path
) -> dict[str, float]:
    before = gateway.memory_info().rss
    followers = [Follower(job_id) for job_id in jobs]
    tasks = [asyncio.create_task(follower.follow(port)) for follower in followers]
    begun = time.monotonic()
    for follower in followers:
        await follower.is_open.wait()
    opened_s = time.monotonic() - begun
    await asyncio.to_thread(stack.start_worker, ["--devices", "cpu"], DRAIN_S, folder / "ready")
    peak = before
    while not all(task.done() for task in tasks):
        peak = max(peak, gateway.memory_info().rss)
        await asyncio.wait(tasks, timeout=0.2)
    for task in tasks:
        task.result()
    late = [f.late_s for f in followers if f.late_s is not None]
    whole = sum(f.states == ["queued", "running", "succeeded"] for f in followers)
    return {
        "streams": len(jobs),
        "ended": len(late),
        "with_every_step": whole,
        "opened_in_s": opened_s,
        "memory_before_mb": before / 2**20,
        "memory_peak_mb": peak / 2**20,
        "kb_a_stream": (peak - before) / 1024 / len(jobs),
        "last_event_p50_ms": 1_000 * percentile(late, 50),
        "last_event_p99_ms": 1_000 * percentile(late, 99),
    }


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def _report(figures: dict[str, float]) -> Report:
    return Report(
        name="streams",
        title="Event streams of one gateway process",
        columns=("", "measured"),
        rows=[(name.replace("_", " "), round(value, 1)) for name, value in figures.items()],
        figures=figures,
        notes="Client, gateway, Valkey, worker and models share the cores.",
    )


if __name__ == "__main__":
    main()
