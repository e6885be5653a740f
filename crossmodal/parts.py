"""What became of the items of a bulk message: JSON lines of `ItemResult` in the object store.

There is a file for each part of the message that was finished. Another attempt goes on after
them, and who waits for the job reads them.
"""

from collections.abc import Sequence

from pydantic import ValidationError

from crossmodal.errors import StorageUnavailable
from crossmodal.jobs.names import RESULTS, result_key
from crossmodal.jobs.params import BlobRef
from crossmodal.jobs.record import ItemResult
from crossmodal.storage import Storage

SUFFIX = ".jsonl"


def put_part(storage: Storage, job_id: str, attempt: int, results: Sequence[ItemResult]) -> BlobRef:
    """Store some results as a part of a bulk job."""
    text = "".join(r.model_dump_json(exclude_defaults=True) + "\n" for r in results)
    key = result_key(job_id, f"{results[0].index}{SUFFIX}", attempt)
    return storage.put(key, text.encode(), "application/jsonl")


def read_part(storage: Storage, part: BlobRef) -> list[ItemResult]:
    """The results in one part. Raises `BlobNotFound`, `StorageUnavailable`."""
    data = storage.get(part)
    try:
        return [ItemResult.model_validate_json(line) for line in data.splitlines()]
    except ValidationError as e:
        raise StorageUnavailable(f"{part.key!r} does not hold results: {e.errors()[0]}") from e


def finished_parts(storage: Storage, job_id: str) -> list[BlobRef]:
    """All parts that any attempt at a bulk job has stored, also where it has not ended.

    The oldest first, so that everybody prefers the same ones of those that overlap.
    """
    found = sorted(storage.list(f"{RESULTS}/{job_id}"), key=lambda b: (b.modified_at, b.key))
    return [BlobRef(key=b.key, size=b.size) for b in found if b.key.endswith(SUFFIX)]
