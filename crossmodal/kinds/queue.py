"""The names of queues: one queue for each kind, model and lane.

txt2img          txt2img.bulk           for the default model of the kind
txt2img.turbo    txt2img.turbo.bulk     for the model named turbo
"""

from typing import NamedTuple, Self

from crossmodal.kinds.fields import is_model_name
from crossmodal.kinds.task import BULK, Task


class Queue(NamedTuple):
    """The task of a queue's jobs and their model, if any; `str` returns the queue's name."""

    task: Task
    model: str | None = None

    def __str__(self) -> str:
        if self.model is None:
            return str(self.task)
        return f"{self.task.kind.name}.{self.model}{BULK * self.task.is_bulk}"

    @property
    def in_bulk(self) -> "Queue":
        """The queue of bulk messages whose items are such jobs."""
        return self._replace(task=self.task.in_bulk)

    @property
    def of_items(self) -> "Queue":
        """The queue of single jobs like the items of this queue's bulk messages."""
        return self._replace(task=self.task.of_items)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a queue's name. Raises `ValueError` for a name that no queue can have."""
        kind, dot, rest = name.removesuffix(BULK).partition(".")
        task = Task(kind + BULK * name.endswith(BULK))
        if dot and not is_model_name(rest):
            raise ValueError(f"{rest[:100]!r} is not a valid model name")
        return cls(task, rest or None)
