"""Whom to tell of a job, and `/v1/webhooks`: what was told."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from crossmodal.jobs.access import ApiKey, ApiKeys
from crossmodal.jobs.origin import HookEvent, Origin, Webhook
from crossmodal.jobs.webhooks import Deliveries
from producer.gateway.caller import Caller, ListInTurn
from producer.gateway.problems import documented
from producer.gateway.requests import DeliveryQuery
from producer.gateway.services import ServicesOf
from producer.gateway.shapes import DeliveryPage, Urls, WebhookSecret

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


def origin_of(
    key: ApiKey,
    urls: Urls,
    url: str | None,
    events: Sequence[HookEvent],
    traceparent: str | None = None,
) -> Origin:
    """What the ledger keeps of who has submitted a job."""
    webhook = Webhook(url=url, events=tuple(events), base=urls.base) if url else None
    return Origin(key.id, key.max_queued if key.id else None, traceparent, webhook)


@router.get(
    "/deliveries", response_model=DeliveryPage, responses=documented(), dependencies=[ListInTurn]
)
async def deliveries(
    key: Caller, services: ServicesOf, query: Annotated[DeliveryQuery, Query()]
) -> DeliveryPage:
    """The caller's latest deliveries: what was answered, and when the next try is."""
    listed = Deliveries(services.settings).list(key.id, query.limit, query.job)
    return DeliveryPage(data=await services.ask(listed))


@router.get("/secret", response_model=WebhookSecret, responses=documented())
async def secret(key: Caller, services: ServicesOf) -> WebhookSecret:
    """What the caller's deliveries are signed with."""
    return WebhookSecret(
        secret=await services.ask(ApiKeys(services.settings).webhook_secret(key.id))
    )
