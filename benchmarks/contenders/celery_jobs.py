"""The job through Celery as it comes, with late acknowledgement and its Redis result backend.

celery -A celery_jobs worker -c 2
python celery_jobs.py COUNT SECONDS
"""

import os
import sys
import time

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"])
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task(name="work")
def work(seconds: float) -> None:
    """The job."""
    if seconds:
        time.sleep(seconds)


def enqueue(count: int, seconds: float) -> None:
    """One by one: it has no other way."""
    for _ in range(count):
        work.delay(seconds)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]), float(sys.argv[2]))
