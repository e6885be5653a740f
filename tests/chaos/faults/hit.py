"""What a fault says of itself."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Hit:
    """How a fault went: whether it found something to break, and the name of the worker hit.

    `doomed` is a Celery worker that the fault will end in a while, with what it still starts.
    """

    happened: bool = True
    worker: str | None = None
    doomed: psutil.Process | None = None
