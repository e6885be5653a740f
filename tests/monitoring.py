"""Celery's own monitor of worker events, as Flower uses it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.events.state import State

from crossmodal.settings import Settings
from tests.celery_app import celery_app
from tests.waiting import until


class Monitor:
    """A monitor's state, and all events that it received."""

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
        """Return the types of a job's events, in order."""
        return [event["type"].removeprefix("task-") for event in self.of(job_id)]


@contextmanager
def monitoring(settings: Settings) -> Iterator[Monitor]:
    """Run a monitor until the block ends."""
    monitor = Monitor()
    with celery_app(settings) as app, app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": monitor})
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        thread.start()
        try:
            _wait_until_it_hears(monitor, app)
            yield monitor
        finally:
            receiver.should_stop = True
            thread.join()


def _wait_until_it_hears(monitor: Monitor, app: Any) -> None:
    """Wait until the monitor receives events: earlier ones would be lost."""
    with app.connection_for_write() as line, app.events.Dispatcher(line) as dispatcher:

        def is_heard() -> bool:
            dispatcher.send("monitor-called")
            return bool(monitor.told)

        until(is_heard, 60, "the monitor")
