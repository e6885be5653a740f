"""Measures how long it takes until jobs run again after one process was killed.

python -m tests.chaos.recovery --rounds 10
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from crossmodal.jobs.record import JobState
from crossmodal.processes import wait_until
from producer import Client, JobHandle
from tests.chaos.storm import world_of
from tests.chaos.world import Worker, World

PROMPT = "a large red circle on a white background"
WAIT_S = 120.0
BATCH = 4


def until(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, WAIT_S, 0.02)


def held_jobs(world: World, client: Client) -> list[JobHandle]:
    """Submit as many jobs as both workers have room for; their suspended hosts hold them."""
    for worker in world.workers:
        worker.host().suspend()  # type: ignore[union-attr]  # they are ready
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(BATCH * len(world.workers))]
    until(lambda: all(job.status().state is JobState.RUNNING for job in jobs))
    return jobs


def kill_and_wait(world: World, process: psutil.Process | None, jobs: list[JobHandle]) -> float:
    """Return the seconds from the kill until all jobs have succeeded, some in a new attempt."""
    assert process is not None
    hosts = [worker.host() for worker in world.workers]
    process.kill()
    begun = time.monotonic()
    for host in hosts:
        with suppress(psutil.NoSuchProcess):  # it has died with its supervisor
            host.resume()  # type: ignore[union-attr]
    until(lambda: all(job.status().state is JobState.SUCCEEDED for job in jobs))
    return time.monotonic() - begun


def kill_celery(world: World, client: Client) -> float:
    process = world.workers[0].celery()
    return kill_and_wait(world, process, held_jobs(world, client))


def kill_supervisor(world: World, client: Client) -> float:
    process = world.workers[0].supervisor()
    return kill_and_wait(world, process, held_jobs(world, client))


def kill_model_host(world: World, client: Client) -> float:
    """Kill under load; return the seconds until the next jobs of that worker succeed."""
    host, other = (worker.host() for worker in world.workers)
    assert host is not None
    assert other is not None
    jobs = [client.txt2img(PROMPT, count=4, seed=i) for i in range(60)]
    until(lambda: jobs[5].status().state is JobState.SUCCEEDED)
    other.suspend()
    host.kill()
    begun = time.monotonic()
    done = succeeded(jobs)
    until(lambda: succeeded(jobs) > done + BATCH)
    took = time.monotonic() - begun
    with suppress(psutil.NoSuchProcess):  # its supervisor took it to hang
        other.resume()
    until(lambda: succeeded(jobs) == len(jobs))
    return took


def succeeded(jobs: list[JobHandle]) -> int:
    return sum(job.status().state is JobState.SUCCEEDED for job in jobs)


KILLS: dict[str, Callable[[World, Client], float]] = {
    "model host": kill_model_host,
    "Celery worker": kill_celery,
    "supervisor": kill_supervisor,
}


def ready(workers: list[Worker]) -> bool:
    return all(w.ready.exists() and w.host() and w.celery() for w in workers)


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=KILLS, help="one kind of kill alone")
    parser.add_argument("--fake", action="store_true", help="a model that loads within a second")
    args = parser.parse_args()
    kinds = [args.only] if args.only else list(KILLS)
    print("| killed | rounds | median (s) | max (s) |\n|---|--:|--:|--:|")
    models = ("fake",) if args.fake else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        world_of(15.0, BATCH, Path(folder), models=models) as world,
    ):
        for name in kinds:
            took = []
            for _ in range(args.rounds):
                world.keep_up()
                until(lambda: ready(world.workers))
                with Client(world.settings(through_proxy=False)) as client:
                    took.append(KILLS[name](world, client))
                    load = os.getloadavg()[0]
                    print(f"{name}: {took[-1]:.1f} s, load {load:.1f}", file=sys.stderr, flush=True)
            median = statistics.median(took)
            print(f"| {name} | {args.rounds} | {median:.1f} | {max(took):.1f} |", flush=True)


if __name__ == "__main__":
    main()
