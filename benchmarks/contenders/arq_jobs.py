"""The job through arq, which takes a job off the queue after the work.

arq arq_jobs.WorkerSettings
python arq_jobs.py COUNT SECONDS
"""

import asyncio
import os
import sys
import time
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings


async def work(_: dict[str, Any], seconds: float) -> None:
    """The job; what blocks goes to a thread, as arq's manual has it."""
    if seconds:
        await asyncio.to_thread(time.sleep, seconds)


class WorkerSettings:
    """The defaults, half a second between looks at the queue and 10 jobs at once, are slower."""

    functions = (work,)
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_URL"])
    keep_result = 0
    poll_delay = 0.01
    max_jobs = 100
    log_results = False


async def enqueue(count: int, seconds: float) -> None:
    """A few at a time, each with a connection of its own."""
    pool = await create_pool(WorkerSettings.redis_settings)
    for start in range(0, count, 50):
        some = range(start, min(start + 50, count))
        await asyncio.gather(*(pool.enqueue_job("work", seconds) for _ in some))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1]), float(sys.argv[2])))
