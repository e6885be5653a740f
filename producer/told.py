"""Error messages for callers, without the addresses of Redis and the object store."""

from crossmodal.errors import (
    BlobNotFound,
    BrokerFull,
    BrokerNotTrusted,
    BrokerRefused,
    BrokerUnavailable,
    CrossmodalError,
    StorageNotWritable,
    StorageUnavailable,
)
from crossmodal.jobs.record import Failure

WITH_ADDRESSES = {  # codes of errors whose messages name an address
    "Redis": {
        kind.code for kind in (BrokerUnavailable, BrokerFull, BrokerRefused, BrokerNotTrusted)
    },
    "the object store": {StorageUnavailable.code, StorageNotWritable.code},
}


def told(code: str, message: str) -> str:
    """Return the message of a failure, or a substitute for one that names an address."""
    what = next((what for what, codes in WITH_ADDRESSES.items() if code in codes), None)
    return f"{what} failed: operators find the cause among the dead letters" if what else message


def told_error(error: CrossmodalError) -> str:
    """Return the message of an error for a remote caller."""
    if is_outage(error):
        what = "Redis" if isinstance(error, BrokerUnavailable) else "the object store"
        return f"{what} is not available: try again in a moment"
    return told(error.code, str(error))


def is_outage(error: CrossmodalError) -> bool:
    """Whether Redis or the object store is unavailable, rather than a blob missing."""
    is_ours = isinstance(error, BrokerUnavailable | StorageUnavailable)
    return is_ours and not isinstance(error, BlobNotFound)


def failure_view(failure: Failure | None) -> Failure | None:
    """Return a failure as its owner may see it."""
    if failure is None:
        return None
    return failure.model_copy(update={"message": told(failure.code, failure.message)})
