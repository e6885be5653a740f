"""What a server is short of for a moment, whichever of its lines has noticed it."""

from crossmodal.errors import Overloaded
from crossmodal.machine import is_shortage

KINDS = (OSError, RuntimeError, MemoryError)
"""What `overload` may understand."""


def overload(error: Exception) -> Overloaded | None:
    """The error of ours for what the system refused; None where that is not what went wrong."""
    if not (isinstance(error, MemoryError) or is_shortage(error)):
        return None
    return Overloaded("the server is short of disk, file descriptors, threads or memory: try again")
