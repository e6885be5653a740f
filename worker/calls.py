"""What a message may have Celery do: run its one task, and nothing before, beside or after it.

Celery lets a sender name other tasks to be called with the result, or instead of it, by the
worker and with the worker's rights; and what is beside the arguments goes over everything that
the worker knows of the request. None of this is needed to ask for a job.
"""

from collections.abc import Mapping
from typing import Any

from celery.app.task import Context

from crossmodal.errors import InvalidMessage

FOLLOWERS = frozenset({"callbacks", "errbacks", "chain", "chord"})
HEADERS = frozenset({  # of Celery's own; whatever a tracing library adds has other names
    "eta", "expires", "group", "group_index", "headers", "id", "ignore_result", "origin",
    "parent_id", "replaced_task_nesting", "retries", "root_id", "shadow", "stamped_headers",
    "stamps", "timelimit",
})  # fmt: skip
RESERVED = frozenset(dir(Context)) - HEADERS


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raises `InvalidMessage` for a header that Celery would take for its own knowledge."""
    _refuse(name for name in RESERVED & headers.keys() if headers[name] is not None)


def check_embedded(embedded: Mapping[str, Any]) -> None:
    """Raises `InvalidMessage` for anything beside the arguments; Celery itself sends nulls."""
    _refuse(name for name, value in embedded.items() if value or name not in FOLLOWERS)


def _refuse(names: Any) -> None:
    name = min(names, default=None)
    if name in FOLLOWERS:
        raise InvalidMessage(
            f"the message has {name}: a job calls no other tasks. Wait for its result, follow its "
            "events, or have a webhook called"
        )
    if name is not None:
        raise InvalidMessage(f"the message has {str(name)[:80]!r} where only Celery may have it")
