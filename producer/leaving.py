"""Cancellation of a job whose caller has disconnected."""

import logging

import anyio

from crossmodal.errors import CrossmodalError, JobNotFound
from producer.aio import AsyncClient

log = logging.getLogger(__name__)

CANCEL_S = 5.0  # max time to cancel an abandoned job


async def cancel_left(client: AsyncClient, job_id: str) -> None:
    """Cancel an abandoned job, even while the task that waited for it is being canceled."""
    with anyio.move_on_after(CANCEL_S, shield=True):
        try:
            await client.cancel(job_id)
        except JobNotFound:  # it was deleted
            return
        except CrossmodalError as e:
            log.warning("abandoned job %s could not be canceled and goes on: %s", job_id, e)
