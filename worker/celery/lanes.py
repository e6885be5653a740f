"""How many messages a worker has in hand: of each model, interactive ones and bulk ones apart.

So no interactive job ever waits because bulk messages fill the worker, and none because another
model is slow.
"""

from collections.abc import Iterator

from crossmodal.kinds.task import BULK
from worker.gate import Gate

ANY = ""  # stands for the models of queues that are in nobody's care


class Lane:
    """The messages of one model and one urgency that are in hand, by their delivery tags."""

    def __init__(self, limit: int, gate: Gate) -> None:
        self.limit = limit
        self._gate = gate
        self.tags: set[str] = set()

    @property
    def room(self) -> int:
        """How many more may be taken."""
        return max(0, self.limit - len(self.tags)) if self._gate.is_open else 0


class Lanes:
    """All lanes of a worker. The pool fills them, the transport takes what there is room for.

    There is none while the `gate` is closed.
    """

    def __init__(self, interactive: int = 1, bulk: int = 1) -> None:
        self.gate = Gate()
        self._limits = {False: interactive, True: bulk}
        self._models: dict[str, str] = {}  # of queues
        self._lanes: dict[bool, dict[str, Lane]] = {
            is_bulk: {ANY: Lane(limit, self.gate)} for is_bulk, limit in self._limits.items()
        }

    def __iter__(self) -> Iterator[Lane]:
        """Those that are served first come first."""
        for lanes in self._lanes.values():
            yield from lanes.values()

    @property
    def interactive(self) -> Lane:
        return self._lanes[False][ANY]

    @property
    def bulk(self) -> Lane:
        return self._lanes[True][ANY]

    def limit(self, interactive: int) -> None:
        """Say how many interactive messages of a model may be in hand."""
        self._limits[False] = self.interactive.limit = interactive

    def assign(self, queue: str, model: str) -> None:
        """Have a queue share the lanes of a model."""
        is_bulk = queue.endswith(BULK)
        self._lanes[is_bulk].setdefault(model, Lane(self._limits[is_bulk], self.gate))
        self._models[queue] = model

    def limit_model(self, model: str, most: int) -> None:
        """Have no more than `most` messages of a model in each of its lanes."""
        for is_bulk, lanes in self._lanes.items():
            if model in lanes:
                lanes[model].limit = min(self._limits[is_bulk], most)

    def of(self, queue: str) -> Lane:
        """The lane of the messages of a queue."""
        return self._lanes[queue.endswith(BULK)][self._models.get(queue, ANY)]

    def in_hand(self, model: str) -> int:
        """How many messages of a model there are; safe to be asked from any thread."""
        return sum(len(lanes[model].tags) for lanes in self._lanes.values() if model in lanes)

    @property
    def tags(self) -> set[str]:
        """The delivery tags of all that is in hand; safe to be asked from any thread."""
        return {tag for lane in list(self) for tag in list(lane.tags)}

    @property
    def limits(self) -> tuple[int, int]:
        """How many interactive messages and how many bulk ones may be in hand, in all."""
        interactive, bulk = (list(lanes.values()) for lanes in self._lanes.values())
        return sum(lane.limit for lane in interactive), sum(lane.limit for lane in bulk)
