"""API keys: access to the gateway, rate limits, and limits of waiting jobs.

A token is `cm_<id>_<secret>`. Redis holds the id and a digest of the secret; it has 256 random
bits, so a plain SHA-256 is enough. The secret that signs webhooks is stored in plain text.
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossmodal.errors import ApiKeyNotFound, InvalidParams, RateLimited, Unauthorized, quoted
from crossmodal.invalid import explained
from crossmodal.jobs.calls import Atomic, Script, Steps, call, redis
from crossmodal.jobs.names import api_key_key, api_keys_key
from crossmodal.settings import Settings

_TOKEN = re.compile(r"cm_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_LETTERS = string.ascii_lowercase + string.digits
_WEBHOOK_SECRET = "webhook_secret"  # noqa: S105 - the name of a field


class ApiKey(BaseModel):
    """An API key; its `id` is the owner of the jobs submitted with it.

    An operator's key may read the queues, metrics and dead letters of all owners, but only its own
    jobs.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str = Field(min_length=1, max_length=100)
    created_at: float
    revoked_at: float | None = None
    is_operator: bool = False
    per_second: float = Field(default=50.0, gt=0, le=10_000)
    burst: int = Field(default=100, ge=1, le=100_000)
    max_queued: int = Field(default=5_000, ge=1)


ANYBODY = ApiKey(id="", name="anybody", created_at=0.0, is_operator=True)
"""The caller of a gateway that requires no keys."""


class ApiKeys:
    """The store of API keys; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix

    @call
    def create(self, /, name: str, **limits: Any) -> Steps[tuple[ApiKey, str]]:
        """Create a key; return it and its token, which is not stored. Raises `InvalidParams`."""
        secret = secrets.token_urlsafe(32)
        seconds, micros = yield redis.time()
        try:
            key = ApiKey(
                id="".join(secrets.choice(_LETTERS) for _ in range(12)),
                name=name,
                created_at=seconds + micros / 1e6,
                **limits,
            )
        except ValidationError as e:
            raise InvalidParams(explained(e.errors()[0], "key")) from e
        fields = {"key": key.model_dump_json(), "digest": _digest(secret)}
        yield Atomic(
            [
                redis.hset(api_key_key(self._prefix, key.id), mapping=fields),
                redis.sadd(api_keys_key(self._prefix), key.id),
            ]
        )
        return key, f"cm_{key.id}_{secret}"

    @call
    def find(self, token: str) -> Steps[ApiKey]:
        """Return the key of a token. Raises `Unauthorized` if it is wrong or revoked."""
        parts = _TOKEN.fullmatch(token)
        key_id, secret = parts.groups() if parts else ("", "")
        text, digest = yield redis.hmget(api_key_key(self._prefix, key_id), "key", "digest")
        if not hmac.compare_digest(digest or "", _digest(secret)) or text is None:
            raise Unauthorized("unknown API key: `crossmodal keys list` shows the known ones")
        key = ApiKey.model_validate_json(text)
        if key.revoked_at is not None:
            raise Unauthorized(f"the API key {key.name!r} was revoked: ask for another")
        return key

    @call
    def list(self) -> Steps[tuple[ApiKey, ...]]:
        """Return all keys, including revoked ones, oldest first."""
        ids = yield redis.smembers(api_keys_key(self._prefix))
        texts = yield [redis.hget(api_key_key(self._prefix, i), "key") for i in ids]
        keys = (ApiKey.model_validate_json(text) for text in texts)
        return tuple(sorted(keys, key=lambda key: key.created_at))

    @call
    def revoke(self, key_id: str) -> Steps[ApiKey]:
        """Revoke a key; its jobs still run and stay. Raises `ApiKeyNotFound`."""
        key = yield from self._get(key_id)
        seconds, _ = yield redis.time()
        revoked = key.model_copy(update={"revoked_at": key.revoked_at or float(seconds)})
        yield redis.hset(api_key_key(self._prefix, key.id), "key", revoked.model_dump_json())
        return revoked

    @call
    def revoked(self, key_ids: Collection[str]) -> Steps[set[str]]:
        """Return those of the keys that are revoked or do not exist."""
        ids = sorted(key_ids)
        texts = yield [redis.hget(api_key_key(self._prefix, i), "key") for i in ids]
        keys = (ApiKey.model_validate_json(text) for text in texts if text)
        return {*ids} - {key.id for key in keys if key.revoked_at is None}

    @call
    def max_queued(self, owner: str, default: int) -> Steps[int]:
        """Return an owner's max number of waiting jobs; `default` if no key has this id."""
        try:
            return (yield from self._get(owner)).max_queued
        except ApiKeyNotFound:
            return default

    @call
    def throttle(self, key: ApiKey) -> Steps[None]:
        """Count a call. Raises `RateLimited` if the key exceeds its rate."""
        number = f"{api_key_key(self._prefix, key.id)}:calls"
        wait = yield Script(
            "throttle", (number,), (self._prefix, key.id, key.per_second, key.burst)
        )
        if wait:
            raise RateLimited(
                f"this API key may make {key.per_second:g} calls a second, {key.burst} at once: "
                "wait a moment",
                float(wait),
            )

    @call
    def webhook_secret(self, owner: str) -> Steps[str]:
        """Return the secret of the owner's webhooks (`whsec_…`); create it on first use."""
        name = api_key_key(self._prefix, owner)
        fresh = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        _, kept = yield [
            redis.hsetnx(name, _WEBHOOK_SECRET, fresh),
            redis.hget(name, _WEBHOOK_SECRET),
        ]
        return str(kept)

    @call
    def _get(self, key_id: str) -> Steps[ApiKey]:
        text = yield redis.hget(api_key_key(self._prefix, key_id), "key")
        if text is None:
            raise ApiKeyNotFound(
                f"there is no API key {quoted(key_id)}: `crossmodal keys list` shows all"
            )
        return ApiKey.model_validate_json(text)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
