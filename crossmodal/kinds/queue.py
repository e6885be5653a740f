"""Which queue a job waits in: there is one a kind, model and lane.

txt2img          txt2img.bulk           for the default model of the kind
txt2img.turbo    txt2img.turbo.bulk     for the model that is called turbo
"""

from typing import NamedTuple, Self

from crossmodal.kinds.fields import is_model_name
from crossmodal.kinds.task import BULK, Task


class Queue(NamedTuple):
    """What its jobs are, and the model that they name, if any; as a text, its name."""

    task: Task
    model: str | None = None

    def __str__(self) -> str:
        if self.model is None:
            return str(self.task)
        return f"{self.task.kind.name}.{self.model}{BULK * self.task.is_bulk}"

    @property
    def in_bulk(self) -> "Queue":
        """The queue of messages that have such jobs as their items."""
        return self._replace(task=self.task.in_bulk)

    @property
    def of_items(self) -> "Queue":
        """The queue of jobs such as its messages have as items."""
        return self._replace(task=self.task.of_items)

    @classmethod
    def parse(cls, name: str) -> Self:
        """The queue of that name. Raises `ValueError` where there can be none."""
        kind, dot, rest = name.removesuffix(BULK).partition(".")
        task = Task(kind + BULK * name.endswith(BULK))
        if dot and not is_model_name(rest):
            raise ValueError(f"no model can be called {rest[:100]!r}")
        return cls(task, rest or None)
