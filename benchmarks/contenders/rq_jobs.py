"""The job through rq.

rq worker --worker-class rq.worker.SimpleWorker
python rq_jobs.py COUNT SECONDS
"""

import os
import sys
import time

from redis import Redis
from rq import Queue


def work(seconds: float) -> None:
    """The job; rq imports it by its name."""
    if seconds:
        time.sleep(seconds)


def enqueue(count: int, seconds: float) -> None:
    """In one pipeline; no result is kept."""
    queue = Queue(connection=Redis.from_url(os.environ["BENCH_URL"]))
    job = Queue.prepare_data("rq_jobs.work", (seconds,), result_ttl=0, description="work")
    queue.enqueue_many([job] * count)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]), float(sys.argv[2]))
