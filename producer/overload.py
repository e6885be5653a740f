"""What a server is short of for a moment, whichever of its lines has noticed it."""

import errno

from crossmodal.errors import Overloaded

SHORT = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM,
    errno.ENOBUFS,
}  # fmt: skip
KINDS = (OSError, RuntimeError, MemoryError)
"""What `overload` may understand."""
_NO_TMPDIR, _NO_THREAD = "No usable temporary directory", "can't start new thread"


def overload(error: Exception) -> Overloaded | None:
    """The error of ours for what the system refused; None where that is not what went wrong."""
    if isinstance(error, OSError):
        is_short = error.errno in SHORT or _NO_TMPDIR in str(error)
    else:
        is_short = isinstance(error, MemoryError) or _NO_THREAD in str(error)
    if not is_short:
        return None
    return Overloaded("the server is short of disk, file descriptors, threads or memory: try again")
