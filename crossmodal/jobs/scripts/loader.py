"""The Lua scripts of the ledger, each with the shared prelude."""

import hashlib
from functools import cache
from importlib import resources


@cache
def script(name: str) -> str:
    """Return the text of a script for SCRIPT LOAD."""
    folder = resources.files("crossmodal.jobs.scripts")
    return "".join(folder.joinpath(f"{n}.lua").read_text() for n in ("common", name))


@cache
def digest(name: str) -> str:
    """Return the SHA-1 of a script for EVALSHA."""
    return hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest()
