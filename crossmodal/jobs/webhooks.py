"""Webhook deliveries: records of what to post, kept until delivered or given up.

The script of a transition creates the delivery, if the job's webhook subscribes to it (`hook` in
common.lua), and adds it to the set of pending ones, scored by when the next try is due. A webhook
sender claims it by moving that time on: if the sender dies, another one tries it then.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from crossmodal.errors import DeliveryNotFound, quoted
from crossmodal.jobs.calls import Script, Steps, call, redis
from crossmodal.jobs.names import deliveries_key, delivery_key, webhooks_key
from crossmodal.jobs.record import Delivery
from crossmodal.settings import Settings

# Delays after each try: a receiver's restart takes seconds, an outage may take days.
RETRIES_S = (
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    900,
    1_800,
    3_600,
    7_200,
    14_400,
    28_800,
    43_200,
    86_400,
)
MARGIN_S = 5.0  # how long a claim lasts beyond the timeout of the post
MAX_OF_OWNER = 3  # concurrent deliveries of one owner
PAGE = 100  # records per pipeline

DeliveryList = list[Delivery]

log = logging.getLogger(__name__)


class Deliveries:
    """The store of delivery records; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._retention_s = settings.retention_s
        self.claim_s = math.ceil(settings.webhook_timeout_s + MARGIN_S)
        self._pending = webhooks_key(self._prefix, "pending")

    @call
    def claim_due(self, max_count: int) -> Steps[DeliveryList]:
        """Claim due deliveries for `claim_s`; return them."""
        args = (self._prefix, "", max_count, self.claim_s, MAX_OF_OWNER)
        found = yield Script("claim_deliveries", (self._pending,), args)
        return [d for name, flat in found if (d := _readable(name, _paired(flat))) is not None]

    @call
    def note(
        self, delivery: Delivery, status: int | None, error: str | None, *, give_up: bool = False
    ) -> Steps[Delivery]:
        """Record the outcome of a try: delivered, to be retried, or given up."""
        tries = delivery.tries + 1
        delivered = status is not None and 200 <= status < 300
        over = delivered or give_up or status == 410
        wait_s = None if over else _backoff_s(delivery.id, tries)
        outcome = "delivered" if delivered else "failed" if wait_s is None else "pending"
        counted = "retried" if outcome == "pending" else outcome
        fields = {"tries": tries, "outcome": outcome, "status": status, "error": error}
        flat = ["" if part is None else part for pair in fields.items() for part in pair]
        args: tuple[Any, ...] = (
            self._prefix,
            delivery.id,
            "" if wait_s is None else wait_s,
            counted,
            self._retention_s,
            *flat,
        )
        _, tried_at, next_at = yield Script("note_delivery", (self._pending,), args)
        return delivery.model_copy(
            update=fields
            | {"tried_at": float(tried_at), "next_at": float(next_at) if next_at else None}
        )

    @call
    def get(self, delivery_id: str) -> Steps[Delivery]:
        """Return a delivery. Raises `DeliveryNotFound`."""
        fields = yield redis.hgetall(delivery_key(self._prefix, delivery_id))
        if not fields:
            raise DeliveryNotFound(f"there is no delivery {quoted(delivery_id[:160])}")
        return _delivery(delivery_id, fields)

    @call
    def list(self, owner: str, max_count: int, job_id: str | None = None) -> Steps[DeliveryList]:
        """Return the latest deliveries of an owner, or of one of its jobs, latest first."""
        key = deliveries_key(self._prefix, owner)
        ids = yield redis.zrevrange(key, 0, -1)
        if job_id is not None:
            ids = [name for name in ids if name.startswith(f"wh_{job_id}.")]
        found: DeliveryList = []
        for begin in range(0, len(ids), PAGE):
            if len(found) >= max_count:
                break
            page = ids[begin : begin + PAGE]
            records = yield [redis.hgetall(delivery_key(self._prefix, name)) for name in page]
            found += [_delivery(n, r) for n, r in zip(page, records, strict=True) if r]
            if expired := [n for n, r in zip(page, records, strict=True) if not r]:
                yield redis.zrem(key, *expired)
        return found[:max_count]

    @call
    def counts(self) -> Steps[dict[str, int]]:
        """Return the counts of `delivered`, `failed` and `pending` deliveries and of retries."""
        found, pending = yield [
            redis.hgetall(webhooks_key(self._prefix, "stats")),
            redis.zcard(self._pending),
        ]
        counts = {name: int(found.get(name, 0)) for name in ("delivered", "failed", "retried")}
        return counts | {"pending": int(pending)}


def _delivery(name: str, fields: Mapping[str, str]) -> Delivery:
    return Delivery.model_validate({"id": name, **fields})


def _readable(name: str, fields: Mapping[str, str]) -> Delivery | None:
    """Return a delivery; None if another version wrote it and it cannot be read."""
    try:
        return _delivery(name, fields)
    except ValidationError as e:
        log.error("cannot read delivery %s, written by another version: %s", name, e)
        return None


def _paired(flat: Iterable[str]) -> dict[str, str]:
    """Return a hash from a script's flat list of fields and values."""
    parts = iter(flat)
    return dict(zip(parts, parts, strict=True))


def _backoff_s(delivery_id: str, tries: int) -> float | None:
    """Return the delay before the next try, with up to 25 % jitter; None after the last."""
    if tries > len(RETRIES_S):
        return None
    spread = hashlib.sha1(f"{delivery_id} {tries}".encode(), usedforsecurity=False).digest()[0]
    return RETRIES_S[tries - 1] * (1 + spread / 1_024)
