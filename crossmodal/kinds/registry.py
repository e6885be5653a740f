"""All kinds: the built-in ones, and those of installed packages.

A package provides one by an entry point of the group `crossmodal.kinds`, which names a `Kind`. The
package must be installed both where jobs are submitted and where they run.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from crossmodal.errors import InvalidParams, InvalidSetting
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.txt2img import TXT2IMG

GROUP = "crossmodal.kinds"
_NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
TAKEN = frozenset(
    {  # by a queue, by batch jobs of mixed kinds, by commands
        "celery",
        "mixed",
        "up",
        "demo",
        "worker",
        "flower",
        "autoscale",
        "status",
        "wait",
        "result",
        "cancel",
        "retry",
        "delete",
        "jobs",
        "queue",
        "gateway",
        "keys",
        "background",
        "webhooks",
        "batch",
        "dead",
        "gc",
        "health",
        "doctor",
        "settings",
        "models",
        "train",
        "evaluate",
        "version",
        "help",
        "pause",
        "resume",
        "mcp",
    }
)


@cache
def kinds() -> Mapping[str, Kind]:
    """Return all kinds by name. Raises `InvalidSetting` for an entry point without a valid kind."""
    found = {kind.name: kind for kind in (TXT2IMG, IMG2TXT)}
    for entry in entry_points(group=GROUP):
        named = f"the entry point {entry.name} = {entry.value} of {GROUP}"
        try:
            kind = entry.load()
        except Exception as e:
            raise InvalidSetting(
                f"{named} cannot be loaded: {type(e).__name__}: {e}: fix or uninstall its package"
            ) from e
        if not isinstance(kind, Kind) or not _NAME.fullmatch(kind.name) or kind.name in TAKEN:
            raise InvalidSetting(
                f"{named} must be a Kind whose name has only lowercase letters and digits and is "
                "not reserved"
            )
        if kind.name in found or any(kind.params is known.params for known in found.values()):
            raise InvalidSetting(f"{named} has the name or the params of another kind")
        found[kind.name] = kind
    return found


def kind_named(name: object) -> Kind:
    """Return the kind with that name. Raises `InvalidParams`."""
    kind = kinds().get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidParams(f"there is no kind {name!r}; known kinds are {', '.join(kinds())}")
    return kind


def kind_of(params: ItemParams) -> Kind:
    """Return the kind of params, also for params of a subclass."""
    known = _by_params()
    return next(known[one] for one in type(params).__mro__ if one in known)


@cache
def _by_params() -> Mapping[type[ItemParams], Kind]:
    return {kind.params: kind for kind in kinds().values()}
