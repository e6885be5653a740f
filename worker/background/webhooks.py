"""Sends webhooks: posts due deliveries, signed as in Standard Webhooks, and records the outcomes.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from crossmodal.errors import BrokerUnavailable, CrossmodalError, FetchFailed, UrlRefused
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Call
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.net import Poster
from crossmodal.settings import Settings

POLL_S = 0.5
CLAIM_EVERY_S = 0.05  # min pause between claims: each scans the due deliveries in Redis
AGAIN_S = 1.0  # delay before the record of an outcome is retried
TELLING_S = 60.0  # max time of these retries

log = logging.getLogger(__name__)


class WebhookSender:
    """A webhook sender: tries up to `concurrency` due deliveries at once. Several may run."""

    def __init__(self, settings: Settings, runner: AsyncRunner, concurrency: int) -> None:
        self._runner = runner
        self._concurrency = concurrency
        self._deliveries = Deliveries(settings)
        self._keys = ApiKeys(settings)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._is_out = False  # so that an outage of Redis is logged once
        self.turned_at = time.monotonic()
        self._poster = Poster(
            timeout_s=settings.webhook_timeout_s, allow_private=settings.allow_private_urls
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set, then finish the deliveries in progress."""
        told = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                self.turned_at = time.monotonic()
                await self._begin_due()
                await asyncio.wait(
                    {told, *self._under_way.values()},
                    timeout=POLL_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                await asyncio.wait({told}, timeout=CLAIM_EVERY_S)
            if self._under_way:
                await asyncio.wait(self._under_way.values())
        finally:
            told.cancel()
            await self._poster.close()

    async def _begin_due(self) -> None:
        """Start to try due deliveries, as many as `concurrency` allows."""
        room = self._concurrency - len(self._under_way)
        if not room:
            return
        try:
            due = await self._runner.run(self._deliveries.claim_due(room))
        except BrokerUnavailable as e:
            self._note_outage(e)
            return
        except Exception:  # the next poll may succeed
            log.exception("internal error in claiming deliveries")
            return
        self._is_out = False
        for delivery in due:
            if delivery.id not in self._under_way:  # else its outcome is not recorded yet
                self._under_way[delivery.id] = asyncio.create_task(self._deliver(delivery))

    def _note_outage(self, error: BrokerUnavailable) -> None:
        if not self._is_out:
            log.warning("webhooks wait for Redis: %s", error)
        self._is_out = True

    async def _deliver(self, delivery: Delivery) -> None:
        """Try a delivery and record the outcome; without a record it is tried again."""
        try:
            async with asyncio.timeout(self._deliveries.claim_s + 2 * TELLING_S):
                told = await self._noted(await self._tried(delivery))
        except BrokerUnavailable as e:
            log.warning("delivery %s is retried: %s", delivery.id, e)
        except Exception:
            log.exception("internal error in delivery %s", delivery.id)
        else:
            log.info("delivery %s: %s, now %s", told.id, told.error or told.status, told.outcome)
        finally:
            del self._under_way[delivery.id]

    async def _tried(self, delivery: Delivery) -> Call[Delivery]:
        """Post, and return the call that records it. Raises `BrokerUnavailable` if not posted."""
        secret = await self._runner.run(self._keys.webhook_secret(delivery.owner))
        note = self._deliveries.note
        try:
            status = await self._post(delivery, secret)
        except UrlRefused as e:  # a retry would be refused, too
            return note(delivery, None, _said(e), give_up=True)
        except FetchFailed as e:
            return note(delivery, None, _said(e))
        except Exception as e:  # counted, so that it is not retried forever
            log.exception("internal error in delivery %s", delivery.id)
            return note(delivery, None, f"internal_error: {type(e).__name__}")
        is_good = 200 <= status < 300
        return note(delivery, status, None if is_good else f"the receiver answered {status}")

    async def _noted(self, note: Call[Delivery]) -> Delivery:
        """Record a try, retrying while Redis is unavailable, so that nothing is posted twice."""
        deadline = time.monotonic() + TELLING_S
        while True:
            try:
                return await self._runner.run(note)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _post(self, delivery: Delivery, secret: str) -> int:
        """Post a signed delivery, and return the HTTP status."""
        body = json.dumps(payload(delivery))
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "crossmodal-webhooks",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(delivery.id, now, body),
        }
        return await self._poster.post(delivery.url, body.encode(), headers)


def payload(delivery: Delivery) -> dict[str, Any]:
    """Return the body of a webhook: the job's state and its result's URL, never the bytes."""
    job_url = f"{delivery.base}/v1/jobs/{delivery.job}"
    at = datetime.fromtimestamp(delivery.created_at, UTC)
    return {
        "type": f"job.{delivery.state}",
        "timestamp": at.isoformat().replace("+00:00", "Z"),
        "data": {
            "job": delivery.job,
            "task": delivery.task,
            "state": delivery.state,
            "attempt": delivery.attempt,
            "code": delivery.code or None,
            "status_url": job_url,
            "result_url": f"{job_url}/result",
        },
    }


def _said(error: CrossmodalError) -> str:
    return f"{error.code}: {error}"[:500]
