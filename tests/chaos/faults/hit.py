"""The outcome of a fault."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Hit:
    """The outcome of a fault: whether it found something to break, and the worker that was hit.

    `doomed` is a Celery worker that the fault will end in a while, with what it still starts.
    """

    happened: bool = True
    worker: str | None = None
    doomed: psutil.Process | None = None
