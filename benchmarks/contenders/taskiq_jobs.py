"""The job through taskiq and a Redis stream, acknowledged after the work.

taskiq worker taskiq_jobs:broker -w 2 --ack-type when_executed
python taskiq_jobs.py COUNT SECONDS
"""

import asyncio
import os
import sys
import time

from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["BENCH_URL"])


@broker.task(task_name="work")
async def work(seconds: float) -> None:
    """The job; what blocks goes to a thread."""
    if seconds:
        await asyncio.to_thread(time.sleep, seconds)


async def enqueue(count: int, seconds: float) -> None:
    """A few at a time, each with a connection of its own."""
    await broker.startup()
    for start in range(0, count, 50):
        some = range(start, min(start + 50, count))
        await asyncio.gather(*(work.kiq(seconds) for _ in some))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1]), float(sys.argv[2])))
