"""The gate by which the job runner stops Celery's side of a worker from taking messages."""

from dataclasses import dataclass


@dataclass
class Gate:
    """A gate that is closed while there is a reason, `why`. Safe to read from any thread."""

    why: str = ""

    @property
    def is_open(self) -> bool:
        return not self.why
