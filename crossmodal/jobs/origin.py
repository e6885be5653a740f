"""The origin of a job: its owner, its webhook and its trace."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

HookEvent = Literal["job.running", "job.succeeded", "job.failed", "job.canceled", "job.expired"]
ENDED: tuple[HookEvent, ...] = ("job.succeeded", "job.failed", "job.canceled", "job.expired")


class Webhook(BaseModel):
    """The receiver of a job's transitions; `base` is the base URL of links in deliveries."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(min_length=8, max_length=2_048)
    events: tuple[HookEvent, ...] = ENDED
    base: str


class Origin(NamedTuple):
    """The origin of a job. `owner` is the id of an API key, or empty.

    `max_queued` is the max number of the owner's waiting jobs per queue.
    """

    owner: str = ""
    max_queued: int | None = None
    traceparent: str | None = None
    webhook: Webhook | None = None


NOBODY = Origin()
