"""Whether a worker takes messages, between the jobs' side, which closes it, and Celery's."""

from dataclasses import dataclass


@dataclass
class Gate:
    """Closed while there is a reason, `why`. Safe to be asked from any thread."""

    why: str = ""

    @property
    def is_open(self) -> bool:
        return not self.why
