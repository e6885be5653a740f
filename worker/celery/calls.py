"""What a message may have Celery do: run its one task, and nothing before, beside or after it.

Celery lets a sender name other tasks to be called with the result, or instead of it, by the
worker and with the worker's rights; and what is beside the arguments goes over everything that
the worker knows of the request. None of this is needed to ask for a job.
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
MAX_DEPTH = 50  # of lists and dictionaries in each other; much deeper, Python itself gives up
MAX_SHOWN = 1_000  # characters of how the arguments are shown, as Celery cuts them
FOLLOWERS = frozenset({"callbacks", "errbacks", "chain", "chord"})
HEADERS = frozenset(
    {  # of Celery's own; whatever a tracing library adds has other names
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
    """Raises `InvalidMessage` for what Celery must not be given; of a message that was parsed."""
    check_depth(message)
    check_headers(message["headers"])
    if message["body"] != EMPTY_BODY:
        check_arguments(message["body"], message["properties"])


def check_depth(value: Any) -> None:
    """Raises `InvalidMessage` for what is nested too deep to be shown or sent again."""
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
    """Decode a call as Celery will, where some dictionaries have a meaning of their own.

    Raises `InvalidMessage`.
    """
    try:
        call = loads(b64decode(body) if properties.get("body_encoding") else body)
        kinds = [type(part) for part in call]
    except Exception as e:  # kombu lets its decoders raise anything
        raise InvalidMessage(f"its arguments cannot be decoded: {described(e)}") from e
    if kinds != [list, dict, dict]:  # such a dictionary may have stood for bytes, or a date
        raise InvalidMessage("its body does not decode to [args, kwargs, embed]")
    check_depth(call)
    check_embedded(call[2])


def take_over(message: dict[str, Any], queue: str, tag: str) -> None:
    """Change what is for the ledger, the settings and the queue to say, and not for a sender."""
    headers, properties = message["headers"], message["properties"]
    headers |= {"timelimit": [None, None], "shadow": None}
    for name in ("argsrepr", "kwargsrepr"):  # which monitors keep, and parse
        headers[name] = str(headers.get(name) or "")[:MAX_SHOWN]
    if headers.get("expires") is not None:  # it may have been taken over before
        headers[EXPIRES_HEADER], headers["expires"] = headers["expires"], None
    # Two copies of one message share a tag: the acknowledgement of one would be of both.
    properties["delivery_tag"] = tag
    is_again = bool(properties["delivery_info"].get("redelivered"))
    properties["delivery_info"] = {"exchange": "", "routing_key": queue, "redelivered": is_again}


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
            f"the message has {name}: a job cannot call other tasks. Wait for its result, follow "
            "its events, or use a webhook"
        )
    if name is not None:
        raise InvalidMessage(
            f"the message has the field {str(name)[:80]!r}, which is reserved for Celery"
        )
