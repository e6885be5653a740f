"""`/v1/webhooks`: deliveries and their secret."""

from typing import Annotated

from fastapi import APIRouter, Query

from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.webhooks import Deliveries
from producer.gateway.caller import Caller, ListInTurn
from producer.gateway.problems import documented
from producer.gateway.requests import DeliveryQuery
from producer.gateway.responses import DeliveryPage, WebhookSecret
from producer.gateway.services import ServicesOf

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


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
