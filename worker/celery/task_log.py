"""What Celery says of tasks, with their job's fields, and without what the job was about.

Celery writes out what a task has returned and raised. Both may quote a prompt.
"""

import logging
from typing import Any

from celery import current_app

from crossmodal.errors import JobFailed, is_callers_fault

LOGGERS = ("celery.app.trace", "celery.worker.strategy")
SUCCEEDED = "Task %(name)s[%(id)s] succeeded in %(runtime).3fs"


class TaskLog(logging.Filter):
    """Changes records in place, and lets all of them pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = getattr(record, "data", None)
        if isinstance(about, dict) and "id" in about:
            record.job = about["id"]
            record.task = str(about["name"]).removeprefix("crossmodal.")
            if "return_value" in about:
                record.msg = SUCCEEDED
                # Celery has only measured the half of the task that runs in its own thread.
                about["runtime"] = current_app.tasks[about["name"]].run_s
            if record.exc_info and isinstance(record.exc_info[1], JobFailed):
                _shorten(record, about, record.exc_info[1])
        return True


def _shorten(record: logging.LogRecord, about: dict[str, Any], error: JobFailed) -> None:
    """Of a caller's mistake only the code; a traceback to our own `raise` says nothing."""
    record.code = error.code
    record.exc_info = None
    record.args = about | {"exc": error.code if is_callers_fault(error.code) else str(error)}


def keep_discreet() -> None:
    """Have all that Celery says of tasks from now on go through this."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(TaskLog())
