"""Flower's configuration: `celery -A worker.app flower --conf=<this file>`.

Flower reads FLOWER_* variables itself (FLOWER_BASIC_AUTH=user:password asks for a login);
what is set here is only what differs from its defaults.
"""

import os

MAX_SHOWN = 80

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
natural_time = True
tasks_columns = "name,uuid,state,kwargs,received,runtime,worker"
max_tasks = 10_000


def format_task(task):  # type: ignore[no-untyped-def]  # Flower's own type, which has no stubs
    """Shorten the arguments that a row of the task list shows."""
    if task.kwargs and len(task.kwargs) > MAX_SHOWN:
        task.kwargs = task.kwargs[: MAX_SHOWN - 1] + "…"
    return task
