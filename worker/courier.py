"""Posts what webhooks asked to be told, signed as Standard Webhooks wants it, and notes the answer.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from crossmodal.errors import CrossmodalError, FetchFailed, UrlRefused
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.net import post
from crossmodal.settings import Settings

log = logging.getLogger(__name__)


class Courier:
    """Tries deliveries; one a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        runner = Runner(settings)
        self._run = runner.run
        self._deliveries = Deliveries(settings, runner.redis)
        self._keys = ApiKeys(settings)

    def deliver(self, delivery_id: str) -> Delivery | None:
        """Try a delivery if it is still to be tried. Raises `BrokerUnavailable`."""
        delivery = self._deliveries.claim(delivery_id)
        if delivery is None:
            return None
        secret = self._run(self._keys.webhook_secret(delivery.owner))
        told = self._try(delivery, secret)
        log.info("delivery %s: %s, now %s", told.id, told.error or told.status, told.outcome)
        return told

    def _try(self, delivery: Delivery, secret: str) -> Delivery:
        """Post, and note what came of it."""
        try:
            status = self._post(delivery, secret)
        except UrlRefused as e:  # which it will be the next time too
            return self._deliveries.note(delivery, None, _said(e), give_up=True)
        except FetchFailed as e:
            return self._deliveries.note(delivery, None, _said(e))
        except Exception as e:  # a mistake of ours: it must not be tried for ever, uncounted
            log.exception("delivery %s: unexpected error", delivery.id)
            return self._deliveries.note(delivery, None, f"internal_error: {type(e).__name__}")
        good = 200 <= status < 300
        error = None if good else f"the receiver answered {status}"
        return self._deliveries.note(delivery, status, error)

    def _post(self, delivery: Delivery, secret: str) -> int:
        """The status of the answer."""
        body = json.dumps(payload(delivery))
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "crossmodal-webhooks",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(delivery.id, now, body),
        }
        return post(
            delivery.url, body.encode(), headers, timeout_s=self._settings.webhook_timeout_s,
            allow_private=self._settings.allow_private_urls,
        )  # fmt: skip


def payload(delivery: Delivery) -> dict[str, Any]:
    """What a receiver is told: where the job stands, and where its result is; never the bytes."""
    job_url = f"{delivery.base}/v1/jobs/{delivery.job}"
    at = datetime.fromtimestamp(delivery.created_at, UTC)
    return {
        "type": f"job.{delivery.state}",
        "timestamp": at.isoformat().replace("+00:00", "Z"),
        "data": {
            "job": delivery.job, "task": delivery.task, "state": delivery.state,
            "attempt": delivery.attempt, "code": delivery.code or None,
            "status_url": job_url, "result_url": f"{job_url}/result",
        },
    }  # fmt: skip


def _said(error: CrossmodalError) -> str:
    return f"{error.code}: {error}"[:500]
