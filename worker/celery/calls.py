"""Checks of a message: Celery may run its one task, and nothing before, beside or after it.

Celery lets a sender name other tasks to be called with the result, or instead of it, by the worker
and with the worker's rights. Extra headers overwrite what the worker knows of the request. A job
needs none of this.
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from celery.app.task import Context
from kombu.utils.json import loads

from crossmodal.errors import InvalidMessage, described
from crossmodal.jobs.message import EMPTY_BODY
from crossmodal.jobs.names import EXPIRES_HEADER
from crossmodal.kinds.task import tasks

TASKS = frozenset(task.celery_name for task in tasks())
MAX_DEPTH = 50  # max nesting of lists and dictionaries, well below Python's recursion limit
MAX_SHOWN = 1_000  # characters of `argsrepr` and `kwargsrepr`, as in Celery
FOLLOWERS = frozenset({"callbacks", "errbacks", "chain", "chord"})
HEADERS = frozenset(
    {  # Celery's own; those that a tracing library adds have other names
        "eta",
        "expires",
        "group",
        "group_index",
        "headers",
        "id",
        "ignore_result",
        "origin",
        "parent_id",
        "replaced_task_nesting",
        "retries",
        "root_id",
        "shadow",
        "stamped_headers",
        "stamps",
        "timelimit",
    }
)
RESERVED = frozenset(dir(Context)) - HEADERS


def check_call(message: Mapping[str, Any]) -> None:
    """Check a parsed message before Celery gets it. Raises `InvalidMessage`."""
    check_depth(message)
    check_headers(message["headers"])
    if message["body"] != EMPTY_BODY:
        check_arguments(message["body"], message["properties"])


def check_depth(value: Any) -> None:
    """Check that a value is not nested too deep to print or send again. Raises `InvalidMessage`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            part
            for whole in level
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
        if not level:
            return
    raise InvalidMessage(
        f"the message is nested more than {MAX_DEPTH} levels deep, which no params need"
    )


def check_arguments(body: str, properties: Mapping[str, Any]) -> None:
    """Check the body of a call, decoded as Celery will decode it. Raises `InvalidMessage`."""
    try:
        call = loads(b64decode(body) if properties.get("body_encoding") else body)
        kinds = [type(part) for part in call]
    except Exception as e:  # kombu lets its decoders raise anything
        raise InvalidMessage(f"its arguments cannot be decoded: {described(e)}") from e
    if kinds != [list, dict, dict]:  # kombu decodes some dictionaries as bytes or dates
        raise InvalidMessage("its body does not decode to [args, kwargs, embed]")
    check_depth(call)
    check_embedded(call[2])


def take_over(message: dict[str, Any], queue: str, tag: str) -> None:
    """Overwrite what the ledger, the settings and the queue decide, not the sender."""
    headers, properties = message["headers"], message["properties"]
    headers |= {"timelimit": [None, None], "shadow": None}
    for name in ("argsrepr", "kwargsrepr"):  # monitors store and parse these
        headers[name] = str(headers.get(name) or "")[:MAX_SHOWN]
    if headers.get("expires") is not None:  # a message that was sent again has EXPIRES_HEADER
        headers[EXPIRES_HEADER], headers["expires"] = headers["expires"], None
    # Two copies of a message share the sender's tag: one acknowledgement would be for both.
    properties["delivery_tag"] = tag
    is_again = bool(properties["delivery_info"].get("redelivered"))
    properties["delivery_info"] = {"exchange": "", "routing_key": queue, "redelivered": is_again}


def check_headers(headers: Mapping[str, Any]) -> None:
    """Refuse a header that Celery would take for its own data. Raises `InvalidMessage`."""
    _refuse(name for name in RESERVED & headers.keys() if headers[name] is not None)


def check_embedded(embedded: Mapping[str, Any]) -> None:
    """Refuse anything beside the arguments; Celery itself sends nulls. Raises `InvalidMessage`."""
    _refuse(name for name, value in embedded.items() if value or name not in FOLLOWERS)


def _refuse(names: Any) -> None:
    name = min(names, default=None)
    if name in FOLLOWERS:
        raise InvalidMessage(
            f"the message has {name}: a job cannot call other tasks. Wait for its result, follow "
            "its events, or use a webhook"
        )
    if name is not None:
        raise InvalidMessage(
            f"the message has the field {str(name)[:80]!r}, which is reserved for Celery"
        )
