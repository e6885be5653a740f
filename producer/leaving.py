"""Jobs that nobody waits for any more, because their caller has gone."""

import logging

import anyio

from crossmodal.errors import CrossmodalError, JobNotFound
from producer.aio import AsyncClient

log = logging.getLogger(__name__)

CANCEL_S = 5.0  # at most, to cancel what its caller has left


async def cancel_left(client: AsyncClient, job_id: str) -> None:
    """Cancel what nobody waits for any more, though the task that has waited is being ended."""
    with anyio.move_on_after(CANCEL_S, shield=True):
        try:
            await client.cancel(job_id)
        except JobNotFound:  # it was deleted
            return
        except CrossmodalError as e:
            log.warning("job %s, which its caller has left, goes on: %s", job_id, e)
