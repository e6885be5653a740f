"""`/v1/webhooks`: deliveries and their secret; also the origin of a submitted job."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from crossmodal.jobs.access import ApiKey, ApiKeys
from crossmodal.jobs.origin import HookEvent, Origin, Webhook
from crossmodal.jobs.webhooks import Deliveries
from producer.gateway.caller import Caller, ListInTurn
from producer.gateway.problems import documented
from producer.gateway.requests import DeliveryQuery
from producer.gateway.responses import DeliveryPage, Urls, WebhookSecret
from producer.gateway.services import ServicesOf

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


def origin_of(
    key: ApiKey,
    urls: Urls,
    url: str | None,
    events: Sequence[HookEvent],
    traceparent: str | None = None,
) -> Origin:
    """Return a job's origin, as the ledger keeps it: owner, limit, trace, webhook."""
    webhook = Webhook(url=url, events=tuple(events), base=urls.base) if url else None
    return Origin(key.id, key.max_queued if key.id else None, traceparent, webhook)


@router.get(
    "/deliveries", response_model=DeliveryPage, responses=documented(), dependencies=[ListInTurn]
)
async def deliveries(
    key: Caller, services: ServicesOf, query: Annotated[DeliveryQuery, Query()]
) -> DeliveryPage:
    """List the caller's latest deliveries, with the answers and the times of next retries."""
    listed = Deliveries(services.settings).list(key.id, query.limit, query.job)
    return DeliveryPage(data=await services.ask(listed))


@router.get("/secret", response_model=WebhookSecret, responses=documented())
async def secret(key: Caller, services: ServicesOf) -> WebhookSecret:
    """Return the secret that signs the caller's deliveries."""
    return WebhookSecret(
        secret=await services.ask(ApiKeys(services.settings).webhook_secret(key.id))
    )
