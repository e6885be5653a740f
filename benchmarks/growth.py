"""The cost of a long queue: the same calls with 10⁴, 10⁵ and 10⁶ jobs waiting, in turns.

    python benchmarks/growth.py [--json] [--most N]

No worker runs. Submit, start, status and cancel are timed on real servers, one per queue length.
Memory is what Redis reports, for interactive jobs and for items of bulk messages.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from efficiency import PROMPTS
from harness import Report, arguments, median, save_plot
from stack import queue_server

from crossmodal.jobs.bulk import MEDIA_TYPE, BulkItem, pack_items
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.message import message_of
from crossmodal.jobs.names import bulk_job_id, new_job_id
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.processes import wait_until
from crossmodal.settings import Settings, load_settings
from producer import Client, JobHandle
from producer.batches.bulk import USUAL as ITEMS

SIZES = (10_000, 100_000, 1_000_000)
CALLS = 2_000
TURN = 100  # calls to one queue in a row
BULK_MESSAGES = 2_000
REWRITTEN_S = 120.0  # max time for the server to rewrite its append-only file

Call = Callable[[], Any]


@dataclass(frozen=True)
class Queue:
    """A server with `size` waiting jobs."""

    size: int
    client: Client
    bytes_per_job: int


def fill(settings: Settings, count: int) -> None:
    """Submit jobs as `Client.txt2img` does, without validation of params, to save time."""
    params = [Txt2ImgParams(prompt=prompt, seed=1) for prompt in PROMPTS]
    with Client(settings) as client:
        for i in range(count):
            some = params[i % len(params)]
            job_id = new_job_id()
            message = message_of(job_id, some)
            client.run(
                client.ledger.submit(
                    Submission(job_id, Task("txt2img"), some.model_dump_json(), "", message=message)
                )
            )


def used_bytes(client: Client) -> int:
    """Return Redis's own report of its memory."""
    return int(client.redis.info("memory")["used_memory"])


@contextmanager
def queue_of(size: int) -> Iterator[Queue]:
    """Run a private server, filled by one process per core."""
    with queue_server(), Client(load_settings()) as client:
        fill(client.settings, 100)  # load the scripts first
        empty, cores = used_bytes(client), len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores, get_context("spawn")) as processes:
            parts = [size // cores] * cores
            list(processes.map(fill, [client.settings] * cores, parts))
        yield Queue(size, client, round((used_bytes(client) - empty) / size))


def in_turns(calls: list[list[Call]]) -> list[float]:
    """Return each queue's median call time in µs; the queues take turns."""
    took: list[list[float]] = [[] for _ in calls]
    for first in range(0, len(calls[0]), TURN):
        for mine, found in zip(calls, took, strict=True):
            for call in mine[first : first + TURN]:
                begun = time.perf_counter()
                call()
                found.append(time.perf_counter() - begun)
    return [round(median(found) * 1e6, 1) for found in took]


def costs(queues: list[Queue]) -> dict[int, dict[str, float]]:
    """Measure each call at each size; start and cancel use jobs submitted here."""
    for queue in queues:
        assert wait_until(lambda q=queue: is_at_rest(q.client), REWRITTEN_S)
    clients = [queue.client for queue in queues]
    jobs: list[list[JobHandle]] = [[] for _ in queues]
    half = CALLS // 2
    found = {
        "submit_us": in_turns(
            [
                [
                    lambda c=c, mine=mine, i=i: mine.append(
                        c.txt2img(PROMPTS[i % len(PROMPTS)], seed=i)
                    )
                    for i in range(CALLS)
                ]
                for c, mine in zip(clients, jobs, strict=True)
            ]
        ),
        "status_us": in_turns(
            [
                [lambda c=c, j=j: c.status(j.id) for j in mine]
                for c, mine in zip(clients, jobs, strict=True)
            ]
        ),
        "start_us": in_turns(
            [
                [lambda c=c, j=j: start(c, j) for j in mine[:half]]
                for c, mine in zip(clients, jobs, strict=True)
            ]
        ),
        "cancel_us": in_turns(
            [
                [lambda c=c, j=j: c.cancel(j.id) for j in mine[half:]]
                for c, mine in zip(clients, jobs, strict=True)
            ]
        ),
    }
    return {
        queue.size: {name: took[i] for name, took in found.items()}
        | {"bytes_per_job": queue.bytes_per_job}
        for i, queue in enumerate(queues)
    }


def start(client: Client, job: JobHandle) -> None:
    """Start a job in the ledger, as a worker does."""
    assert isinstance(client.run(client.ledger.start(job.id, "bench")), Attempt)


def is_at_rest(client: Client) -> bool:
    """Whether no rewrite of the append-only file runs or is scheduled."""
    info = client.redis.info("persistence")
    return not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def bulk_bytes_per_item(client: Client) -> float:
    """Return the bytes of Redis's memory per waiting item of a bulk message."""
    items = [
        BulkItem(str(i), {"prompt": PROMPTS[i % len(PROMPTS)], "seed": i}) for i in range(ITEMS)
    ]
    blob = client.storage.put_input(pack_items(items), MEDIA_TYPE)
    before, batch_id = used_bytes(client), new_job_id()
    for number in range(BULK_MESSAGES):
        params = BulkParams(kind="txt2img", input=blob, items=ITEMS, batch=batch_id, number=number)
        job_id, task = bulk_job_id(batch_id, number), Task("txt2img.bulk")
        client.run(
            client.ledger.submit(
                Submission(
                    job_id,
                    task,
                    params.model_dump_json(),
                    "",
                    message=message_of(job_id, params),
                    batch=params,
                )
            )
        )
    return round((used_bytes(client) - before) / (BULK_MESSAGES * ITEMS), 1)


def plot(found: dict[int, dict[str, float]]) -> None:
    """Plot cost over queue length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    for name in ("submit_us", "start_us", "status_us", "cancel_us"):
        axes.plot(
            list(found),
            [f[name] for f in found.values()],
            marker="o",
            label=name.removesuffix("_us"),
        )
    axes.set_xscale("log")
    axes.set_ylim(0)
    axes.set_xlabel("jobs that wait")
    axes.set_ylabel("µs")
    axes.legend()
    save_plot("growth", figure)


def main() -> None:
    """Measure, print and save the results."""
    parser = arguments(__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the longest queue")
    args = parser.parse_args()
    os.environ["CROSSMODAL_MAX_MEMORY_RATIO"] = "1"
    sizes = [size for size in SIZES if size <= args.most]
    with ExitStack() as stack:
        queues = [stack.enter_context(queue_of(size)) for size in sizes]
        found = costs(queues)
        bulk_bytes = bulk_bytes_per_item(queues[0].client)
    first, last = found[min(found)], found[max(found)]
    ratios = {
        f"{name}_ratio": round(last[f"{name}_us"] / first[f"{name}_us"], 2)
        for name in ("submit", "start", "status", "cancel")
    }
    figures = {str(size): f for size, f in found.items()}
    report = Report(
        "growth",
        "What a long queue costs",
        (
            "jobs that wait",
            "submit (µs)",
            "status (µs)",
            "start (µs)",
            "cancel (µs)",
            "bytes a job",
        ),
        figures={**figures, **ratios, "bulk_bytes_per_item": bulk_bytes},
        notes=f"Medians of {CALLS} calls, {TURN} at each length in turn. Status includes the place "
        f"in the queue. An item in a bulk message of {ITEMS} takes {bulk_bytes} bytes of Redis.",
    )
    report.rows = [(f"{size:,}", *f.values()) for size, f in found.items()]
    report.finish(args.json)
    plot(found)


if __name__ == "__main__":
    main()
