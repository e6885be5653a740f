"""How long it takes until jobs run again after one process was killed, over and over.

python -m tests.chaos.recovery --rounds 10
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
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


def held_batch(world: World, client: Client) -> list[JobHandle]:
    """A batch that runs on the first worker and stays there: its host does not move."""
    first, second = world.workers
    assert second.child is not None
    second.child.stop(60)
    host = first.host()
    assert host is not None
    host.suspend()
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(BATCH)]
    until(lambda: all(job.status().state is JobState.RUNNING for job in jobs))
    second.keep_up()
    until(second.ready.exists)
    return jobs


def kill_and_wait(
    process: psutil.Process | None, jobs: list[JobHandle], host: psutil.Process | None
) -> float:
    """Seconds from the kill until all jobs have succeeded in another attempt."""
    assert process is not None
    process.kill()
    begun = time.monotonic()
    if host is not None and host.is_running():
        host.resume()
    until(lambda: all(job.status().state is JobState.SUCCEEDED for job in jobs))
    return time.monotonic() - begun


def kill_celery(world: World, client: Client) -> float:
    worker = world.workers[0]
    host = worker.host()
    return kill_and_wait(worker.celery(), held_batch(world, client), host)


def kill_supervisor(world: World, client: Client) -> float:
    worker = world.workers[0]
    host = worker.host()
    return kill_and_wait(worker.supervisor(), held_batch(world, client), host)


def kill_model_host(world: World, client: Client) -> float:
    """With one worker only, under load: from the kill until the next job succeeds, and all do."""
    first, second = world.workers
    assert second.child is not None
    second.child.stop(60)
    jobs = [client.txt2img(PROMPT, count=4, seed=i) for i in range(60)]
    until(lambda: jobs[5].status().state is JobState.SUCCEEDED)
    host = first.host()
    assert host is not None
    host.kill()
    begun = time.monotonic()
    done = succeeded(jobs)
    until(lambda: succeeded(jobs) > done + BATCH)
    took = time.monotonic() - begun
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
    args = parser.parse_args()
    kinds = [args.only] if args.only else list(KILLS)
    print("| killed | rounds | median (s) | max (s) |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder, world_of(15.0, BATCH, Path(folder)) as world:
        for name in kinds:
            took = []
            for _ in range(args.rounds):
                world.keep_up()
                until(lambda: ready(world.workers))
                with Client(world.settings(through_proxy=False)) as client:
                    took.append(KILLS[name](world, client))
            median = statistics.median(took)
            print(f"| {name} | {args.rounds} | {median:.1f} | {max(took):.1f} |", flush=True)


if __name__ == "__main__":
    main()
