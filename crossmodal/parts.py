"""Results of a bulk message: JSON lines of `ItemResult` in the object store.

Each finished part of the message is a file. A later attempt continues after them, and clients that
wait for the job read them.
"""

from collections.abc import Sequence

from pydantic_core import from_json, to_json

from crossmodal.errors import BlobDamaged
from crossmodal.jobs.names import RESULTS, result_key
from crossmodal.jobs.record import ITEM_RESULTS, ItemResult
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage import Storage

SUFFIX = ".jsonl"
SKEW_S = 60.0  # allowed skew between the clocks of Redis and the object store


def put_part(storage: Storage, job_id: str, attempt: int, results: Sequence[ItemResult]) -> BlobRef:
    """Store results as a part of a bulk job."""
    rows = ITEM_RESULTS.dump_python(list(results), exclude_defaults=True)
    lines = b"".join(to_json(row) + b"\n" for row in rows)
    key = result_key(job_id, f"{results[0].index}{SUFFIX}", attempt)
    return storage.put(key, lines, "application/jsonl")


def read_part(
    storage: Storage, part: BlobRef, places: Sequence[int] | None = None
) -> list[ItemResult]:
    """Read the results of a part; `places` maps each `index` to its item's place.

    Raises `BlobNotFound`, `BlobDamaged`, `StorageUnavailable`.
    """
    data = storage.get(part)
    try:
        rows = [from_json(line) for line in data.splitlines()]
        if places is not None:
            for row in rows:
                row["index"] = places[row["index"]]
        return ITEM_RESULTS.validate_python(rows)
    except (ValueError, TypeError, LookupError) as e:  # malformed content must not kill the process
        raise BlobDamaged(f"{part.key!r} does not hold results: {e}") from e


def finished_parts(storage: Storage, job_id: str, created_at: float) -> list[BlobRef]:
    """Return all parts stored by any attempt at a bulk job, ended or not.

    Oldest first, so that all readers prefer the same parts where some overlap. Parts older than the
    job are skipped: they belong to an earlier job with the same id, whose record has expired.
    """
    found = sorted(storage.list(f"{RESULTS}/{job_id}"), key=lambda b: (b.modified_at, b.key))
    return [
        BlobRef(key=b.key, size=b.size)
        for b in found
        if b.key.endswith(SUFFIX) and b.modified_at > created_at - SKEW_S
    ]
