"""The job through dramatiq, which acknowledges after the work.

dramatiq dramatiq_jobs -p 2
python dramatiq_jobs.py COUNT SECONDS
"""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_URL"]))


@dramatiq.actor
def work(seconds: float) -> None:
    """The job."""
    if seconds:
        time.sleep(seconds)


def enqueue(count: int, seconds: float) -> None:
    """One by one: it has no other way."""
    for _ in range(count):
        work.send(seconds)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]), float(sys.argv[2]))
