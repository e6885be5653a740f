"""What Celery's own monitor makes of the events of workers, as Flower shows it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.events.state import State

from crossmodal.settings import Settings
from tests.celery_app import celery_app


class Monitor:
    """What a monitor makes of the events, and all events of a task."""

    def __init__(self) -> None:
        self.state = State()
        self.told: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.state.event(event)
        self.told.append(event)

    def state_of(self, job_id: str) -> str | None:
        task = self.state.tasks.get(job_id)
        return None if task is None else str(task.state)

    def of(self, job_id: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event.get("uuid") == job_id]

    def last_of(self, job_id: str) -> dict[str, Any]:
        return self.of(job_id)[-1]

    def story_of(self, job_id: str) -> list[str]:
        """The kinds of its events, in the order in which they were sent."""
        return [event["type"].removeprefix("task-") for event in self.of(job_id)]


@contextmanager
def monitoring(settings: Settings) -> Iterator[Monitor]:
    """A monitor that listens while the block runs."""
    monitor, is_over = Monitor(), threading.Event()

    def read() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": monitor})
            while not is_over.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue

    with celery_app(settings) as app:
        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield monitor
        finally:
            is_over.set()
            thread.join()
