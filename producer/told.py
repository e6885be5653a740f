"""What callers are told of a failure: no address of Redis or of the store is their matter."""

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

WITH_ADDRESSES = {  # codes of errors that name where something is
    "Redis": {
        kind.code for kind in (BrokerUnavailable, BrokerFull, BrokerRefused, BrokerNotTrusted)
    },
    "the object store": {StorageUnavailable.code, StorageNotWritable.code},
}


def told(code: str, message: str) -> str:
    """The message of a failure, or what stands for one that names an address."""
    what = next((what for what, codes in WITH_ADDRESSES.items() if code in codes), None)
    return f"{what} failed: operators see why among the dead letters" if what else message


def told_error(error: CrossmodalError) -> str:
    """The message of an error for a caller from elsewhere."""
    if is_outage(error):
        what = "Redis" if isinstance(error, BrokerUnavailable) else "the object store"
        return f"{what} takes nothing now: try again in a moment"
    return told(error.code, str(error))


def is_outage(error: CrossmodalError) -> bool:
    """Whether Redis or the store is away, rather than that something is not in it."""
    is_ours = isinstance(error, BrokerUnavailable | StorageUnavailable)
    return is_ours and not isinstance(error, BlobNotFound)


def failure_view(failure: Failure | None) -> Failure | None:
    """Why there is no result, as its owner may know it."""
    if failure is None:
        return None
    return failure.model_copy(update={"message": told(failure.code, failure.message)})
