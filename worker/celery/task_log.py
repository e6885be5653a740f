"""Celery's log lines about tasks, with their job's fields and without prompts.

Celery logs what a task has returned or raised. Both may quote a prompt.
"""

import logging
from typing import Any

from celery import current_app

from crossmodal.errors import JobFailed, is_callers_fault

LOGGERS = ("celery.app.trace", "celery.worker.strategy")
SUCCEEDED = "Task %(name)s[%(id)s] succeeded in %(runtime).3fs"


class TaskLog(logging.Filter):
    """A filter that changes records in place and drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = getattr(record, "data", None)
        if isinstance(about, dict) and "id" in about:
            record.job = about["id"]
            record.task = str(about["name"]).removeprefix("crossmodal.")
            if "return_value" in about:
                record.msg = SUCCEEDED
                # Celery measured only the half of the task that runs in its own thread.
                about["runtime"] = current_app.tasks[about["name"]].run_s
            if record.exc_info and isinstance(record.exc_info[1], JobFailed):
                _shorten(record, about, record.exc_info[1])
        return True


def _shorten(record: logging.LogRecord, about: dict[str, Any], error: JobFailed) -> None:
    """Drop the traceback, which shows only our `raise`, and log a caller's mistake by its code."""
    record.code = error.code
    record.exc_info = None
    record.args = about | {"exc": error.code if is_callers_fault(error.code) else str(error)}


def keep_discreet() -> None:
    """Filter all that Celery logs about tasks from now on."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(TaskLog())
