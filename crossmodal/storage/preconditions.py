"""Puts that do not replace what came after them: compare and set, where a store can do that.

A store may carry out a write long after its sender has given it up: the bytes wait in a socket
until the cut cable is mended. Without a precondition, such a write replaces what was put since.
"""

from collections.abc import Callable
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import ObjectStore

TRIES = 5  # at putting what others put at the same time


def put_over(
    store: ObjectStore,
    key: str,
    data: bytes,
    attributes: dict[str, str] | None,
    may_replace: Callable[[bytes], bool],
) -> bool | None:
    """Put `data` unless what is there may not be replaced; whether it was put.

    None when others put there each time between a look and the put.
    """
    mode: Any = "create"
    for _ in range(TRIES):
        try:
            obstore.put(store, key, data, attributes=attributes, mode=mode)
            return True
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            pass
        except NotImplementedError:  # so obstore says AWS_CONDITIONAL_PUT=disabled: done without
            mode = "overwrite"
            continue
        found, mode = _found(store, key)
        if found == data:  # put by this very call, whose answer was lost
            return True
        if found is not None and not may_replace(found):
            return False
    return None


def _found(store: ObjectStore, key: str) -> tuple[bytes | None, Any]:
    """What is there, and the mode of a put that replaces just that."""
    try:
        response = obstore.get(store, key)
        data = bytes(response.bytes())
    except FileNotFoundError:
        return None, "create"
    version = {"e_tag": response.meta["e_tag"], "version": response.meta["version"]}
    return data, {name: value for name, value in version.items() if value is not None}
