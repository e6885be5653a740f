"""What became of the items of a bulk message: JSON lines of `ItemResult` in the object store.

There is a file for each part of the message that was finished. Another attempt goes on after
them, and who waits for the job reads them.
"""

from collections.abc import Sequence

from pydantic_core import from_json, to_json

from crossmodal.errors import BlobDamaged
from crossmodal.jobs.names import RESULTS, result_key
from crossmodal.jobs.record import ITEM_RESULTS, ItemResult
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage import Storage

SUFFIX = ".jsonl"
SKEW_S = 60.0  # that the clocks of Redis and of the store may differ


def put_part(storage: Storage, job_id: str, attempt: int, results: Sequence[ItemResult]) -> BlobRef:
    """Store some results as a part of a bulk job."""
    rows = ITEM_RESULTS.dump_python(list(results), exclude_defaults=True)
    lines = b"".join(to_json(row) + b"\n" for row in rows)
    key = result_key(job_id, f"{results[0].index}{SUFFIX}", attempt)
    return storage.put(key, lines, "application/jsonl")


def read_part(
    storage: Storage, part: BlobRef, places: Sequence[int] | None = None
) -> list[ItemResult]:
    """The results in one part; with `places`, the `index` of each is its item's place there.

    Raises `BlobNotFound`, `BlobDamaged`, `StorageUnavailable`.
    """
    data = storage.get(part)
    try:
        rows = [from_json(line) for line in data.splitlines()]
        if places is not None:
            for row in rows:
                row["index"] = places[row["index"]]
        return ITEM_RESULTS.validate_python(rows)
    except (ValueError, TypeError, LookupError) as e:  # what is no result is no reason to die
        raise BlobDamaged(f"{part.key!r} does not hold results: {e}") from e


def finished_parts(storage: Storage, job_id: str, created_at: float) -> list[BlobRef]:
    """All parts that any attempt at a bulk job has stored, also where it has not ended.

    The oldest first, so that everybody prefers the same ones of those that overlap. What is older
    than the job is of another that had its id, before the records of that one went.
    """
    found = sorted(storage.list(f"{RESULTS}/{job_id}"), key=lambda b: (b.modified_at, b.key))
    return [
        BlobRef(key=b.key, size=b.size)
        for b in found
        if b.key.endswith(SUFFIX) and b.modified_at > created_at - SKEW_S
    ]
