"""Workers with toy tasks, sent to them as by plain Celery."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossmodal.jobs.acl import Role
from crossmodal.jobs.names import celery_prefix, messages_key
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import Task
from crossmodal.local.stack import Stack
from crossmodal.processes import Child
from crossmodal.settings import Settings, load_settings
from tests.celery_app import celery_app
from tests.servers import Server
from tests.waiting import until
from tests.workers import environment

READY_S = 60
WORKER = [
    sys.executable,
    "-m",
    "celery",
    "-A",
    "tests.fakes.toys",
    "worker",
    "--task-events",
    "--without-gossip",
    "--without-mingle",
]


class ToyWorker:
    """A running worker of toy tasks, and an app to send it some."""

    def __init__(
        self, settings: Settings, admin: Any, app: Any, folder: Path, process: Child
    ) -> None:
        self.settings = settings
        self.app = app
        self.folder = folder
        self.process = process
        self.redis = admin

    def send(
        self,
        task: Task = Task("txt2img"),
        queue: str = "",
        after_s: float | None = None,
        **kwargs: Any,
    ) -> str:
        """Send a toy task, and return its id."""
        queue = queue or str(task)
        sent = self.app.send_task(task.celery_name, kwargs=kwargs, queue=queue, countdown=after_s)
        return str(sent.id)

    @property
    def made(self) -> Counter[str]:
        """The ids of the toy tasks that reached their end, with counts."""
        return Counter((self.folder / "made").read_text().split())

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def in_hand(self) -> int:
        """How many messages are unacknowledged."""
        return int(self.redis.hlen(celery_prefix(self.settings.key_prefix) + "unacked"))

    def waiting(self, task: Task = Task("txt2img")) -> int:
        """Return how many messages wait in a queue."""
        return int(self.redis.llen(messages_key(self.settings.key_prefix, str(task))))

    def inspect(self, what: str) -> Any:
        """Return the worker's reply to an inspection, once it answers them."""
        answers: list[dict[str, Any]] = []

        def is_answered() -> bool:
            asked = self.app.control.inspect(timeout=5, limit=1)
            answers.append(getattr(asked, what)() or {})
            return bool(answers[-1])

        until(is_answered, READY_S, "an answer")
        [answer] = answers[-1].values()
        return answer

    def signal(self, number: signal.Signals) -> None:
        self.process.send(number)

    def wait_for_end(self) -> int | None:
        until(lambda: not self.process.is_alive, READY_S, "the end of the worker")
        return self.process.returncode


@contextmanager
def toy_worker(
    settings: Settings, admin: Any, folder: Path, concurrency: int = 4, bulk: int = 2, **more: str
) -> Iterator[ToyWorker]:
    """Run a toy worker with this concurrency per lane, and yield it when ready."""
    folder.mkdir(exist_ok=True)
    (folder / "made").touch()
    env = environment(settings) | {
        "CROSSMODAL_BULK_CONCURRENCY": str(bulk),
        "TOY_FILE": str(folder / "made"),
        "CROSSMODAL_LOG_LEVEL": "INFO",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        **more,
    }
    settings = settings.model_copy(
        update={"result_backend": more.get("CELERY_RESULT_BACKEND") and settings.broker_url}
    )
    with (folder / "log").open("wb") as log, Stack(env, log) as stack:
        process = stack.start("toys", [*WORKER, "-c", str(concurrency)], 20)
        with celery_app(settings) as app:
            worker = ToyWorker(settings, admin, app, folder, process)
            with Runner(settings) as runner:
                until(lambda: bool(runner.run(Workers(settings).recent())), READY_S, "the worker")
            yield worker


@contextmanager
def toys_of(
    server: Server, prefix: str, folder: Path, concurrency: int = 4, bulk: int = 2, **more: str
) -> Iterator[ToyWorker]:
    """Run a toy worker with a private key prefix and users on a shared server."""
    server.add_users(prefix)
    settings = load_settings(
        broker_url=server.url(Role.WORKER, prefix),
        result_backend="",
        key_prefix=prefix,
        storage_url=(folder / "storage").as_uri(),
    )
    with (
        server.admin() as admin,
        toy_worker(settings, admin, folder, concurrency, bulk, **more) as worker,
    ):
        yield worker
