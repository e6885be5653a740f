"""What a queue costs that is long: the same calls with 10⁴, 10⁵ and 10⁶ jobs waiting.

    python benchmarks/growth.py [--json] [--most N]

No worker runs. Submit, start, status and cancel are timed on a real server; memory is what
Redis says it uses, for interactive jobs and for items of bulk messages.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from efficiency import PROMPTS
from harness import Report, arguments, median, save_plot
from stack import queue_server

from crossmodal.jobs.bulk import MEDIA_TYPE, BulkItem, pack_items
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import Task, bulk_job_id, new_job_id
from crossmodal.jobs.params import BulkParams, Txt2ImgParams
from crossmodal.settings import load_settings
from producer import Client, JobHandle
from producer.bulk import USUAL as ITEMS

SIZES = (10_000, 100_000, 1_000_000)
CALLS = 2_000
BULK_MESSAGES = 2_000


def per_call_us(calls: Iterator[Callable[[], Any]]) -> float:
    """Microseconds of a call: the median."""
    took = []
    for call in calls:
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return round(median(took) * 1e6, 1)


def fill(client: Client, count: int) -> None:
    """Submit jobs as `Client.txt2img` does, so many that the validation of params is spared."""
    ledger = client.ledger
    params = [Txt2ImgParams(prompt=prompt, seed=1) for prompt in PROMPTS]
    for i in range(count):
        some = params[i % len(params)]
        job_id = new_job_id()
        message = message_of(Task.TXT2IMG, job_id, some)
        ledger.submit(job_id, Task.TXT2IMG, some.model_dump_json(), "", message=message)


def used_bytes(client: Client) -> int:
    """Redis's own count of its memory."""
    return int(client.redis.info("memory")["used_memory"])


def costs(client: Client, size: int, empty: int) -> dict[str, float]:
    """Each call's cost while `size` jobs wait; jobs of its own are what it starts and cancels."""
    bytes_per_job = round((used_bytes(client) - empty) / size)
    jobs: list[JobHandle] = []
    submit_us = per_call_us(
        (lambda i=i: jobs.append(client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i)))
        for i in range(CALLS)
    )
    ledger: JobLedger = client.ledger
    started: list[Attempt] = []

    def start(job: JobHandle) -> None:
        attempt = ledger.start(job.id, "bench")
        assert isinstance(attempt, Attempt)
        started.append(attempt)

    half = CALLS // 2
    found = {
        "submit_us": submit_us,
        "status_us": per_call_us((lambda j=j: client.status(j.id)) for j in jobs),
        "start_us": per_call_us((lambda j=j: start(j)) for j in jobs[:half]),
        "cancel_us": per_call_us((lambda j=j: client.cancel(j.id)) for j in jobs[half:]),
        "bytes_per_job": bytes_per_job,
    }
    for attempt in started:
        client.cancel(attempt.job)
    return found


def bulk_bytes_per_item(client: Client) -> float:
    """Redis's memory for an item that waits in a bulk message."""
    items = [
        BulkItem(str(i), {"prompt": PROMPTS[i % len(PROMPTS)], "seed": i}) for i in range(ITEMS)
    ]
    blob = client.storage.put_input(pack_items(items), MEDIA_TYPE)
    before, batch_id = used_bytes(client), new_job_id()
    for number in range(BULK_MESSAGES):
        params = BulkParams(kind="txt2img", input=blob, items=ITEMS, batch=batch_id, number=number)
        job_id, task = bulk_job_id(batch_id, number), Task.TXT2IMG_BULK
        client.ledger.submit(
            job_id, task, params.model_dump_json(), "",
            message=message_of(task, job_id, params), batch=params,
        )  # fmt: skip
    return round((used_bytes(client) - before) / (BULK_MESSAGES * ITEMS), 1)


def plot(found: dict[int, dict[str, float]]) -> None:
    """Cost over length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    for name in ("submit_us", "start_us", "status_us", "cancel_us"):
        axes.plot(list(found), [f[name] for f in found.values()], marker="o",
                  label=name.removesuffix("_us"))  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0)
    axes.set_xlabel("jobs that wait")
    axes.set_ylabel("µs")
    axes.legend()
    save_plot("growth", figure)


def main() -> None:
    """Measure, print, and write down."""
    parser = arguments(__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the longest queue")
    args = parser.parse_args()
    os.environ["CROSSMODAL_MAX_MEMORY_RATIO"] = "1"
    found: dict[int, dict[str, float]] = {}
    with queue_server(), Client(load_settings()) as client:
        fill(client, 100)  # scripts are loaded, connections open
        bulk_bytes = bulk_bytes_per_item(client)
        empty, waiting = used_bytes(client), 0
        for size in (size for size in SIZES if size <= args.most):
            fill(client, size - waiting)
            waiting = size
            found[size] = costs(client, size, empty)
    first, last = found[min(found)], found[max(found)]
    ratios = {
        f"{name}_ratio": round(last[f"{name}_us"] / first[f"{name}_us"], 2)
        for name in ("submit", "start", "status", "cancel")
    }
    figures = {str(size): f for size, f in found.items()}
    report = Report(
        "growth", "What a long queue costs",
        ("jobs that wait", "submit (µs)", "status (µs)", "start (µs)", "cancel (µs)",
         "bytes a job"),
        figures={**figures, **ratios, "bulk_bytes_per_item": bulk_bytes},
        notes=f"Medians of {CALLS} calls. Status includes the place in the queue. An item in a "
        f"bulk message of {ITEMS} takes {bulk_bytes} bytes of Redis.",
    )  # fmt: skip
    report.rows = [(f"{size:,}", *f.values()) for size, f in found.items()]
    report.finish(args.json)
    plot(found)


if __name__ == "__main__":
    main()
