"""Deliveries of webhooks: what is to be told whom, kept until it was, or nobody wants it.

A transition that a job's submitter asked to be told makes a delivery, in the same script
(`hook` in common.lua). It stays in the set of pending ones, scored by when it is to be tried,
whatever becomes of the messages that have it tried.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from redis import Redis

from crossmodal.errors import DeliveryNotFound, quoted
from crossmodal.jobs.connection import broker_errors
from crossmodal.jobs.names import deliveries_key, delivery_key, webhooks_key
from crossmodal.jobs.record import Delivery
from crossmodal.jobs.scripts import script
from crossmodal.settings import Settings

# Seconds after each try: a restart of the receiver is over in seconds, an outage in days.
RETRIES_S = (
    2, 5, 10, 20, 30, 60, 120, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400,
)  # fmt: skip
CLAIM_S = 60  # longer than a try may take
MOST_OF_ONE = 3  # deliveries of one owner that are tried at once


class Deliveries:
    """The records of deliveries. Every method may raise `BrokerUnavailable`."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._prefix = settings.key_prefix
        self._redis: Any = redis
        self._pending = webhooks_key(self._prefix, "pending")
        self._scripts = {
            name: self._redis.register_script(script(name)) for name in ("claim", "due", "note")
        }

    def send_due(self) -> int:
        """Have all tried that are due; returns how many messages were sent for that."""
        with broker_errors(self._settings):
            return int(self._scripts["due"](keys=[self._pending], args=[self._prefix, ""]))

    def claim(self, delivery_id: str) -> Delivery | None:
        """The delivery, for this process to try; None when it is not to be tried now."""
        args: list[Any] = [self._prefix, delivery_id, CLAIM_S, MOST_OF_ONE]
        with broker_errors(self._settings):
            reply = self._scripts["claim"](keys=[self._pending], args=args)
        return self.get(delivery_id) if reply[0] == "ok" else None

    def note(self, delivery: Delivery, status: int | None, error: str | None, *,
             give_up: bool = False) -> Delivery:  # fmt: skip
        """Record a try: delivered, to be tried again, or given up."""
        tries = delivery.tries + 1
        delivered = status is not None and 200 <= status < 300
        over = delivered or give_up or status == 410
        wait_s = None if over else _backoff_s(delivery.id, tries)
        outcome = "delivered" if delivered else "failed" if wait_s is None else "pending"
        counted = "retried" if outcome == "pending" else outcome
        fields = {"tries": tries, "outcome": outcome, "status": status, "error": error}
        flat = ["" if part is None else part for pair in fields.items() for part in pair]
        args: list[Any] = [
            self._prefix, delivery.id, "" if wait_s is None else wait_s, counted,
            self._settings.retention_s, *flat,
        ]  # fmt: skip
        with broker_errors(self._settings):
            _, tried_at, next_at = self._scripts["note"](keys=[self._pending], args=args)
        return delivery.model_copy(update=fields | {
            "tried_at": float(tried_at), "next_at": float(next_at) if next_at else None,
        })  # fmt: skip

    def get(self, delivery_id: str) -> Delivery:
        """One delivery. Raises `DeliveryNotFound`."""
        with broker_errors(self._settings):
            fields = self._redis.hgetall(delivery_key(self._prefix, delivery_id))
        if not fields:
            raise DeliveryNotFound(f"there is no delivery {quoted(delivery_id[:160])}")
        return Delivery.model_validate({"id": delivery_id, **fields})

    def list(self, owner: str, most: int, job_id: str | None = None) -> Iterator[Delivery]:
        """The latest deliveries of an owner, or those of one of its jobs."""
        key = deliveries_key(self._prefix, owner)
        with broker_errors(self._settings):
            ids = self._redis.zrevrange(key, 0, -1)
        found = 0
        for delivery_id in ids:
            if found == most:
                return
            if job_id is not None and not delivery_id.startswith(f"wh_{job_id}."):
                continue
            try:
                yield self.get(delivery_id)
                found += 1
            except DeliveryNotFound:  # it has expired
                with broker_errors(self._settings):
                    self._redis.zrem(key, delivery_id)

    def counts(self) -> dict[str, int]:
        """How many were `delivered`, `failed` for good and `retried`, and are `pending`."""
        with broker_errors(self._settings):
            found = self._redis.hgetall(webhooks_key(self._prefix, "stats"))
            pending = self._redis.zcard(self._pending)
        counts = {name: int(found.get(name, 0)) for name in ("delivered", "failed", "retried")}
        return counts | {"pending": int(pending)}


def _backoff_s(delivery_id: str, tries: int) -> float | None:
    """Seconds to the next try, up to a quarter more so that not all come at once; None: enough."""
    if tries > len(RETRIES_S):
        return None
    spread = hashlib.sha1(f"{delivery_id} {tries}".encode(), usedforsecurity=False).digest()[0]
    return RETRIES_S[tries - 1] * (1 + spread / 1_024)
