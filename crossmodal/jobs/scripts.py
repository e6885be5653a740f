"""The Lua scripts of the ledger, each behind what they have in common."""

import hashlib
from functools import cache
from importlib import resources


@cache
def script(name: str) -> str:
    """The text of a script, to be registered with a server."""
    folder = resources.files("crossmodal.jobs")
    return "".join(folder.joinpath(f"{n}.lua").read_text() for n in ("common", name))


@cache
def digest(name: str) -> str:
    """What a server knows the script by once it has been loaded."""
    return hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest()
