"""Where a job comes from: whose it is, whom it is to be told, what trace it is part of."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

HookEvent = Literal["job.running", "job.succeeded", "job.failed", "job.canceled", "job.expired"]
ENDED: tuple[HookEvent, ...] = ("job.succeeded", "job.failed", "job.canceled", "job.expired")


class Webhook(BaseModel):
    """Where transitions of a job are posted to; `base` begins the URLs that it is told."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(min_length=8, max_length=2_048)
    events: tuple[HookEvent, ...] = ENDED
    base: str


class Origin(NamedTuple):
    """The submitter's side of a job. `owner` is the id of an API key, or empty for nobody's.

    An owner may have `max_queued` jobs waiting in a queue.
    """

    owner: str = ""
    max_queued: int | None = None
    traceparent: str | None = None
    webhook: Webhook | None = None


NOBODY = Origin()
