"""What callers are told of a failure: no address of Redis or of the store is their matter."""

from crossmodal.errors import (
    BrokerFull,
    BrokerNotTrusted,
    BrokerRefused,
    BrokerUnavailable,
    StorageNotWritable,
    StorageUnavailable,
)
from crossmodal.jobs.record import Failure

WITH_ADDRESSES = {  # codes of errors that name where something is
    "Redis": {kind.code for kind in (
        BrokerUnavailable, BrokerFull, BrokerRefused, BrokerNotTrusted,
    )},
    "the object store": {StorageUnavailable.code, StorageNotWritable.code},
}  # fmt: skip


def told(code: str, message: str) -> str:
    """The message of a failure, or what stands for one that names an address."""
    what = next((what for what, codes in WITH_ADDRESSES.items() if code in codes), None)
    return f"{what} failed: operators see why among the dead letters" if what else message


def failure_view(failure: Failure | None) -> Failure | None:
    """Why there is no result, as its owner may know it."""
    if failure is None:
        return None
    return failure.model_copy(update={"message": told(failure.code, failure.message)})
