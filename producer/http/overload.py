"""Detection of a server's temporary lack of resources."""

from crossmodal.errors import Overloaded
from crossmodal.machine import is_shortage

KINDS = (OSError, RuntimeError, MemoryError)
"""The exceptions to pass to `overload`."""


def overload(error: Exception) -> Overloaded | None:
    """Return `Overloaded` for an error by lack of resources; None for any other."""
    if not (isinstance(error, MemoryError) or is_shortage(error)):
        return None
    return Overloaded("the server is short of disk, file descriptors, threads or memory: try again")
