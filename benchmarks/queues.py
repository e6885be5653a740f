"""Time to empty a queue: five libraries and this project, on the same server and cores.

    python benchmarks/queues.py [--json]

Each turn starts a fresh Valkey and the workers, warms them up, stops them (SIGSTOP), queues
all jobs, and measures the time from SIGCONT until nothing is queued or unacknowledged. All
acknowledge after the work. The contenders have their own virtual environments, which the first
run installs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import CONTENDERS, environment
from harness import Report, arguments, median, save_plot, take_turns
from redis import Redis
from stack import Running, fake_stack, queue_server

from crossmodal.jobs.names import queue_key
from crossmodal.kinds.task import Task
from crossmodal.local.valkey import valkey_url
from crossmodal.processes import Child, wait_until
from producer import Client
from producer.batches.bulk import AHEAD, MOST

CORES = 2
LOADS = {"noop": (0.0, 2000), "model_5ms": (0.005, 1000)}  # seconds per job, number of jobs
BATCHES = 4  # bulk batches at once, each as large as a client sends before it reads
WARM_JOBS, WARM_ITEMS, SETTLE_S = 100, 10_000, 1.5
POLL_S = 0.01
LIMIT_S = 120.0
BULK, OURS = "crossmodal bulk", "crossmodal"


@dataclass(frozen=True)
class Contender:
    """A library: its workers, the script that enqueues, and its count of unacknowledged jobs."""

    script: str
    workers: list[list[str]]
    python: str
    pending: Callable[[Redis], int]


def in_rq(redis: Any) -> int:
    """Count waiting, intermediate and running jobs."""
    taken = redis.zcard("rq:wip:default") + redis.llen("rq:queue:default:intermediate")
    return int(redis.llen("rq:queue:default") + taken)


def in_dramatiq(redis: Any) -> int:
    """Count messages: one stays in the hash until it is acknowledged."""
    return int(redis.hlen("dramatiq:default.msgs"))


def in_arq(redis: Any) -> int:
    """Count jobs: one leaves the sorted set when it has ended."""
    return int(redis.zcard("arq:queue"))


def in_taskiq(redis: Any) -> int:
    """Count undelivered and unacknowledged messages."""
    groups = redis.xinfo_groups("taskiq") if redis.exists("taskiq") else []
    return sum(int(g["lag"] or 0) + int(g["pending"]) for g in groups)


def in_celery(redis: Any) -> int:
    """Count waiting and unacknowledged messages."""
    return int(redis.llen("celery") + redis.hlen("unacked"))


def contenders() -> dict[str, Contender | None]:
    """Return the contenders by name, None if not installable; one process per core."""
    found: dict[str, Contender | None] = {}
    for name, workers, pending in (
        (
            "rq",
            [
                [
                    "rq",
                    "worker",
                    "--worker-class",
                    "rq.worker.SimpleWorker",
                    "--logging_level",
                    "WARNING",
                ]
            ]
            * CORES,
            in_rq,
        ),
        ("dramatiq", [["dramatiq", "dramatiq_jobs", "-p", str(CORES)]], in_dramatiq),
        ("arq", [["arq", "arq_jobs.WorkerSettings"]] * CORES, in_arq),
        (
            "taskiq",
            [
                [
                    "taskiq",
                    "worker",
                    "taskiq_jobs:broker",
                    "-w",
                    str(CORES),
                    "--ack-type",
                    "when_executed",
                    "--log-level",
                    "WARNING",
                ]
            ],
            in_taskiq,
        ),
    ):
        if (programs := environment(name)) is None:
            found[name] = None
            continue
        argvs = [[str(programs / argv[0]), *argv[1:]] for argv in workers]
        found[name] = Contender(f"{name}_jobs.py", argvs, str(programs / "python"), pending)
    return found | {f"celery -c {n}": celery(n) for n in (CORES, 8)}


def celery(processes: int) -> Contender:
    """Return bare Celery, in the version that this project uses."""
    argv = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_jobs",
        "worker",
        "--loglevel",
        "WARNING",
        "--concurrency",
        str(processes),
    ]
    return Contender("celery_jobs.py", [argv], sys.executable, in_celery)


def drained(contender: Contender, seconds: float, count: int) -> float:
    """Return jobs per second of a library."""
    with queue_server() as (folder, port):
        url = valkey_url(port)
        env = {"BENCH_URL": url, "RQ_REDIS_URL": url, "PYTHONPATH": str(CONTENDERS)}
        with Redis.from_url(url) as redis, started(contender, env, folder) as children:

            def is_empty() -> bool:
                return contender.pending(redis) == 0

            enqueue(contender, env, WARM_JOBS, 0.0)
            assert wait_until(is_empty, LIMIT_S), f"{contender.script} does not work"
            time.sleep(SETTLE_S)  # a second process may start only after the last warm-up job
            stop_all(children)
            enqueue(contender, env, count, seconds)
            # A stopped worker may hold a delivered job that it has not recorded yet.
            assert contender.pending(redis) > 0.9 * count
            return count / time_to(is_empty, children)


@contextmanager
def started(contender: Contender, env: dict[str, str], folder: Path) -> Iterator[list[Child]]:
    """Run the workers of a library."""
    with (folder / "log").open("wb") as log:
        children = [Child(contender.script, argv, env, log) for argv in contender.workers]
        try:
            for child in children:
                child.start()
            yield children
        finally:
            for child in children:
                send_all([child], signal.SIGCONT)  # a stopped process does not end
                child.stop(10)


def enqueue(contender: Contender, env: dict[str, str], count: int, seconds: float) -> None:
    """Enqueue jobs in a separate process, with the library's own client."""
    argv = [contender.python, str(CONTENDERS / contender.script), str(count), str(seconds)]
    subprocess.run(argv, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)


def time_to(is_empty: Callable[[], bool], children: list[Child]) -> float:
    """Continue the stopped workers; return the seconds until the queue is empty."""
    begun = time.perf_counter()
    send_all(children, signal.SIGCONT)
    assert wait_until(is_empty, LIMIT_S, POLL_S), "the queue was not emptied"
    return time.perf_counter() - begun


def stop_all(children: list[Child]) -> None:
    """Stop the workers with SIGSTOP."""
    send_all(children, signal.SIGSTOP)


def send_all(children: list[Child], number: signal.Signals) -> None:
    """Signal the processes and their forks; each process leads its own group."""
    for child in children:
        if child.pid is not None and child.is_alive:
            os.killpg(child.pid, number)


def children_of(running: Running) -> list[Child]:
    """Return the worker of a stack."""
    assert running.worker is not None
    return [running.worker.child]


def interactive(seconds: float, count: int) -> float:
    """Return this project's jobs per second, one message per job."""
    with fake_stack(seconds) as running:
        warm(running)
        workers = children_of(running)
        stop_all(workers)
        for _ in range(count):
            running.client.txt2img("a red circle", seed=1)
        assert unfinished(running.client, Task("txt2img")) == count
        return count / time_to(lambda: unfinished(running.client, Task("txt2img")) == 0, workers)


def bulk(seconds: float) -> float:
    """Return this project's bulk items per second, from SIGCONT to the last result read."""
    with fake_stack(seconds) as running, ThreadPoolExecutor(BATCHES) as threads:
        warm(running)
        workers = children_of(running)
        stop_all(workers)
        read = [threads.submit(one_batch, running.client) for _ in range(BATCHES)]
        bulk_task = Task("txt2img").in_bulk
        assert wait_until(lambda: unfinished(running.client, bulk_task) == BATCHES * AHEAD, LIMIT_S)
        lasted = time_to(lambda: all(f.done() for f in read), workers)
        return sum(f.result() for f in read) / lasted


def one_batch(client: Client) -> int:
    """Run a batch as large as is sent before reading; return the number of results."""
    return sum(1 for _ in client.map_txt2img(["a red circle"] * AHEAD * MOST))


def warm(running: Running) -> None:
    """Run jobs until all processes have started."""
    client = running.client
    list(client.map_txt2img(["a red circle"] * WARM_ITEMS))
    list(client.as_completed([client.txt2img("a red circle") for _ in range(WARM_JOBS)]))


def unfinished(client: Client, task: Task) -> int:
    """Count waiting and running jobs, as cheaply as for the other libraries."""
    keys = [queue_key(client.settings.key_prefix, task.queue, s) for s in ("queued", "running")]
    return sum(int(client.redis.zcard(key)) for key in keys)


def measure(rounds: int) -> dict[str, dict[str, float | None]]:
    """Return rates by load and name; None for a library that could not be installed."""
    others = contenders()
    found: dict[str, dict[str, float | None]] = {}
    for load, (seconds, count) in LOADS.items():
        ways: dict[str, Callable[[], float]] = {
            name: lambda c=c, s=seconds, n=count: drained(c, s, n)  # type: ignore[misc]
            for name, c in others.items()
            if c is not None
        }
        ways[OURS] = lambda s=seconds, n=count: interactive(s, n)  # type: ignore[misc]
        ways[BULK] = lambda s=seconds: bulk(s)  # type: ignore[misc]
        rates = {name: median(values) for name, values in take_turns(ways, rounds).items()}
        tried = [rates.pop(name) for name in others if name.startswith("celery")]
        found[load] = {name: rates.get(name) for name in others if not name.startswith("celery")}
        found[load] |= {"celery": max(tried), OURS: rates[OURS], BULK: rates[BULK]}
    return found


def ratios(rates: dict[str, float | None]) -> tuple[float, float]:
    """Return the ratios of bulk to the fastest library, and of interactive to bare Celery."""
    known = {name: rate for name, rate in rates.items() if rate is not None}
    fastest = max(rate for name, rate in known.items() if name not in (OURS, BULK))
    return known[BULK] / fastest, known[OURS] / known["celery"]


def plot(found: dict[str, dict[str, float | None]]) -> None:
    """Plot the rates as bars, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3))
    titles = ("no work", "5 ms of a model")
    for axes, rates, title in zip(figure.subplots(1, 2), found.values(), titles, strict=True):
        known = {name: rate for name, rate in rates.items() if rate is not None}
        colors = ["tab:orange" if name in (OURS, BULK) else "tab:blue" for name in known]
        bars = axes.barh(list(known), list(known.values()), color=colors)
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8)
        axes.set(xscale="log", xlabel="jobs a second", title=title)
        axes.set_xlim(left=10, right=4 * max(known.values()))  # room for the labels
    save_plot("queues", figure)


NOTES = f"""Medians of the rounds. All on {CORES} cores, with one server's settings (append-only
file, fsync every second), and with acknowledgement after the work. rq: two SimpleWorkers, which
do not fork. dramatiq: two processes of 8 threads. arq: two processes of 100 jobs at once
that look at the queue every 10 ms. taskiq: two processes, Redis streams, `when_executed`. None of
these keeps a result; Celery keeps it in its Redis backend, and is the better of 2 and 8 processes.
crossmodal has one worker process with its defaults; it keeps a record of each job and its
result. Its bulk rate counts items, of which up to {MOST} travel in a message, until the last
result is read.

The 5 ms are a sleep in each job of the others, and as many sleep side by side as they have
processes, threads or coroutines. In crossmodal they are a device call, one at a time, that takes
5 ms for all jobs of a batch: batching is the point of it."""


def main() -> None:
    """Measure, print and save the results."""
    args = arguments(__doc__).parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # children inherit it
    found = measure(args.rounds)
    by_load = {load: ratios(rates) for load, rates in found.items()}
    figures: dict[str, Any] = {
        load: {name: rate and round(rate, 1) for name, rate in rates.items()}
        for load, rates in found.items()
    }
    for load, suffix in (("noop", ""), ("model_5ms", "_5ms")):
        figures[f"bulk_over_fastest{suffix}"] = round(by_load[load][0], 2)
        figures[f"interactive_over_celery{suffix}"] = round(by_load[load][1], 2)
    report = Report(
        "queues",
        "Emptying a queue, beside other libraries",
        ("library", "no work, a second", "5 ms of a model, a second"),
        figures=figures,
        notes=NOTES,
    )
    for name in reversed(found["noop"]):
        report.rows.append((name, figures["noop"][name], figures["model_5ms"][name]))
    report.finish(args.json)
    plot(found)


if __name__ == "__main__":
    main()
