"""Decide whether a server requires API keys."""

from crossmodal.addresses import LOOPBACK
from crossmodal.errors import InvalidSetting
from crossmodal.settings import Settings
from producer.client import Client


def needs_keys(settings: Settings, address: str, asked: bool | None) -> bool:
    """Return whether callers need keys. Raises `InvalidSetting` for an unsafe choice."""
    local = address in LOOPBACK
    if asked is None:
        asked = not local
    if not asked and not local:
        raise InvalidSetting(
            f"--no-keys is for loopback addresses only, and {address} is not one: anybody "
            "who can reach it could use the models"
        )
    with Client(settings) as client:
        if asked and not any(key.revoked_at is None for key in client.keys.list()):
            raise InvalidSetting(
                f"listening at {address} needs API keys, and there are none: "
                "`crossmodal keys create NAME` makes one"
            )
    return asked
