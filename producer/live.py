"""A job's progress, shown live below a notebook's cell or in a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crossmodal.jobs.record import JobStatus
from producer.notebook import status_html
from producer.place import place

Tell = Callable[[JobStatus], object]


class Line:
    """A job's state, as text and as HTML for notebooks."""

    def __init__(self, status: JobStatus | None = None) -> None:
        self._status = status

    def __repr__(self) -> str:
        return "" if self._status is None else f"{self._status.id} {place(self._status)}"

    def _repr_html_(self) -> str:
        return "" if self._status is None else status_html(self._status)


@contextmanager
def told(wanted: bool) -> Iterator[Tell | None]:
    """Yield a function that shows a job's status; None if it is not wanted."""
    if not wanted:
        yield None
    elif (display := _display()) is not None:
        shown = display(Line(), display_id=True)
        yield lambda status: shown.update(Line(status))
    else:
        from crossmodal.console import progress  # slow to import, and rarely needed

        with progress("waiting", 1) as bar:
            yield lambda status: bar.update(bar.task_ids[0], description=place(status))


def _display() -> Any:
    """Return IPython's `display` in a notebook's kernel, else None; it needs no widgets."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    return display if getattr(get_ipython(), "kernel", None) is not None else None
