"""Whose a job or a blob is. An owner is the id of an API key; nobody's is everybody's to see
only where the gateway asks for no keys, and there the caller is nobody in particular.
"""

from crossmodal.errors import BlobNotFound, JobNotFound
from crossmodal.jobs.names import INPUTS, PREVIEWS, RESULTS, job_of_result, owner_of_input
from crossmodal.jobs.record import Job
from producer.aio import AsyncClient
from producer.client import Client


def may_see(caller: str, owner: str) -> bool:
    """Whether a caller may see what is an owner's; without a key, on loopback, all is seen."""
    return caller in ("", owner)


def missing(what: str, name: str, caller: str) -> str:
    """What is said of what is not there, or not for this caller to see."""
    return f"there is no {what} {name[:200]!r}" + (" of this API key" if caller else "")


def is_visible(blob: str, caller: str, client: Client) -> bool:
    """Whether a key lies below `results/`, `previews/` or `inputs/`, in what the caller may see."""
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
    """The size of a blob that the caller may see. Raises `BlobNotFound` for any other."""
    found = client.storage.head(blob) if is_visible(blob, caller, client) else None
    if found is None:
        raise BlobNotFound(missing("blob", blob, caller))
    return found.size


async def own_record(job_id: str, caller: str, client: AsyncClient) -> Job:
    """The job, if it is the caller's; another's is as if it were not there."""
    try:
        job = await client.record(job_id)
    except JobNotFound:
        job = None
    if job is None or not may_see(caller, job.owner):
        raise JobNotFound(missing("job", job_id, caller))
    return job
