"""Ownership of jobs and blobs. An owner is the id of an API key, or "" without a key.

The caller "" exists only on a gateway that needs no keys, and may see everything.
"""

from crossmodal.errors import BlobNotFound, JobNotFound
from crossmodal.jobs.names import INPUTS, PREVIEWS, RESULTS, job_of_result, owner_of_input
from crossmodal.jobs.record import Job
from producer.aio import AsyncClient
from producer.client import Client


def may_see(caller: str, owner: str) -> bool:
    """Return whether a caller may see an owner's data; a caller without a key sees all."""
    return caller in ("", owner)


def missing(what: str, name: str, caller: str) -> str:
    """Return the message for something missing, or hidden from this caller."""
    return f"there is no {what} {name[:200]!r}" + (" of this API key" if caller else "")


def is_visible(blob: str, caller: str, client: Client) -> bool:
    """Return whether a caller may see a blob of `results/`, `previews/` or `inputs/`."""
    folder, *rest = blob.split("/")
    if not blob.isprintable() or not rest or any(part in ("", ".", "..") for part in rest):
        return False
    if folder == INPUTS:
        return may_see(caller, owner_of_input(blob))
    if folder not in (RESULTS, PREVIEWS) or len(rest) < 2:
        return False
    try:
        return may_see(caller, client.record(job_of_result(blob)).owner)
    except JobNotFound:
        return False


def size_of(blob: str, caller: str, client: Client) -> int:
    """Return the size in bytes of a blob. Raises `BlobNotFound`, also for a hidden blob."""
    found = client.storage.head(blob) if is_visible(blob, caller, client) else None
    if found is None:
        raise BlobNotFound(missing("blob", blob, caller))
    return found.size


async def own_record(job_id: str, caller: str, client: AsyncClient) -> Job:
    """Return the caller's job. Raises `JobNotFound`, also for a job of another owner."""
    try:
        job = await client.record(job_id)
    except JobNotFound:
        job = None
    if job is None or not may_see(caller, job.owner):
        raise JobNotFound(missing("job", job_id, caller))
    return job
