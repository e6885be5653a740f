"""The messages that a worker has in hand, limited for each model and lane.

So an interactive job never waits because bulk messages fill the worker, or another model is slow.
"""

from collections.abc import Iterator

from crossmodal.kinds.task import BULK
from worker.gate import Gate

ANY = ""  # the model of queues that were assigned to none


class Lane:
    """One lane of one model: the delivery tags of its messages in hand."""

    def __init__(self, limit: int, gate: Gate) -> None:
        self.limit = limit
        self._gate = gate
        self.tags: set[str] = set()

    @property
    def room(self) -> int:
        """How many more messages may be taken."""
        return max(0, self.limit - len(self.tags)) if self._gate.is_open else 0


class Lanes:
    """All lanes of a worker: the pool fills them, the transport takes what there is room for.

    There is no room while the `gate` is closed.
    """

    def __init__(self, interactive: int = 1, bulk: int = 1) -> None:
        self.gate = Gate()
        self._limits = {False: interactive, True: bulk}
        self._models: dict[str, str] = {}  # by queue
        self._lanes: dict[bool, dict[str, Lane]] = {
            is_bulk: {ANY: Lane(limit, self.gate)} for is_bulk, limit in self._limits.items()
        }

    def __iter__(self) -> Iterator[Lane]:
        """Yield the lanes in the order in which they are served."""
        for lanes in self._lanes.values():
            yield from lanes.values()

    @property
    def interactive(self) -> Lane:
        return self._lanes[False][ANY]

    @property
    def bulk(self) -> Lane:
        return self._lanes[True][ANY]

    def limit(self, interactive: int) -> None:
        """Set how many interactive messages of each model may be in hand."""
        self._limits[False] = self.interactive.limit = interactive

    def assign(self, queue: str, model: str) -> None:
        """Make a queue share the lanes of a model."""
        is_bulk = queue.endswith(BULK)
        self._lanes[is_bulk].setdefault(model, Lane(self._limits[is_bulk], self.gate))
        self._models[queue] = model

    def limit_model(self, model: str, most: int) -> None:
        """Limit each lane of a model to `most` messages in hand."""
        for is_bulk, lanes in self._lanes.items():
            if model in lanes:
                lanes[model].limit = min(self._limits[is_bulk], most)

    def of(self, queue: str) -> Lane:
        """Return the lane of a queue's messages."""
        return self._lanes[queue.endswith(BULK)][self._models.get(queue, ANY)]

    def in_hand(self, model: str) -> int:
        """Return how many messages of a model are in hand. Thread-safe."""
        return sum(len(lanes[model].tags) for lanes in self._lanes.values() if model in lanes)

    @property
    def tags(self) -> set[str]:
        """The delivery tags of all messages in hand. Thread-safe."""
        return {tag for lane in list(self) for tag in list(lane.tags)}

    @property
    def limits(self) -> tuple[int, int]:
        """How many interactive and how many bulk messages may be in hand, in all."""
        interactive, bulk = (list(lanes.values()) for lanes in self._lanes.values())
        return sum(lane.limit for lane in interactive), sum(lane.limit for lane in bulk)
