"""Which queues a worker serves, and how many messages of each lane it runs at once."""

from collections.abc import Collection
from dataclasses import dataclass

from crossmodal.errors import InvalidSetting
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.task import Task, tasks
from crossmodal.models.catalog import ModelFolder, Served
from crossmodal.settings import Settings

CONCURRENCY = {"cpu": 24, "cuda": 32}
BULK_CONCURRENCY = {"cpu": 4, "cuda": 8}


@dataclass(frozen=True)
class Crew:
    """Queues of one lane, and how many of their messages a Celery worker runs at once.

    Lanes are counted separately, so that no interactive job waits for a bulk message to end.
    """

    queues: list[str]
    concurrency: int
    is_bulk: bool = False


def queues_of(found: ModelFolder, served: Served) -> list[str]:
    """Return the queues of a folder's models.

    Jobs for the default model wait in queues without a model name, except for those sent before
    it became the default.
    """
    own = [task for task in tasks() if task.kind.name in found.kinds]
    unnamed = map(Queue, own) if found.name == served.default else ()
    return [str(queue) for queue in (*unnamed, *(Queue(task, found.name) for task in own))]


def crews_of(
    settings: Settings,
    device: str,
    served: Served,
    queues: str | None = None,
    concurrency: int | None = None,
    bulk_concurrency: int | None = None,
) -> list[Crew]:
    """Return the queues of each lane, and how many of their messages a worker runs at once.

    `device` is cpu or cuda, `queues` the chosen ones. The plain Celery queue, whose messages may
    be of any kind, is served only with a default model for every kind. Raises `InvalidSetting`.
    """
    in_hand = concurrency or CONCURRENCY[device]
    bulk_in_hand = bulk_concurrency or settings.bulk_concurrency or BULK_CONCURRENCY[device]
    chosen = served_queues(served, queues)
    bulk = [queue for queue in chosen if Queue.parse(queue).task.is_bulk]
    interactive = [queue for queue in chosen if queue not in bulk]
    serves_all = {str(Queue(Task(kind))) for kind in kinds()} <= set(interactive)
    if interactive and settings.plain_queue and serves_all:
        interactive.append(settings.plain_queue)
    crews = [Crew(interactive, in_hand), Crew(bulk, bulk_in_hand, is_bulk=True)]
    return [crew for crew in crews if crew.queues]


def served_queues(served: Served, text: str | None) -> list[str]:
    """Return the chosen queues, or all; a queue without a model name stands for all models.

    Raises `InvalidSetting` for an unknown queue, one that no model serves, and an empty list.
    """
    own = [queue for folder in served.folders for queue in queues_of(folder, served)]
    if text is None:
        return own
    asked = parse_queues(text)
    chosen = [queue for queue in own if queue in asked or str(Queue.parse(queue).task) in asked]
    for queue in asked:
        if not any(queue in (one, str(Queue.parse(one).task)) for one in own):
            where = ", ".join(str(folder.folder) for folder in served.folders)
            raise InvalidSetting(
                f"--queues {text!r}: the models in {where} do not serve {queue}: choose "
                f"from {', '.join(own)}"
            )
    return chosen


def parse_queues(text: str) -> Collection[str]:
    """Parse a list of queues. Raises `InvalidSetting` for an unknown queue and an empty list."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = ", ".join(map(str, tasks()))
    if not names:
        raise InvalidSetting(f"--queues {text!r}: choose from {known}")
    for name in names:
        try:
            Queue.parse(name)
        except ValueError as e:
            raise InvalidSetting(f"--queues {text!r}: choose from {known}") from e
    return names
