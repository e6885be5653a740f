"""The items of a bulk message, as they lie in the object store.

They are one msgpack blob, pictures included: a message costs one upload and one download.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgpack

from crossmodal.errors import InvalidParams

MEDIA_TYPE = "application/vnd.msgpack"
SURROGATES = {"unicode_errors": "surrogatepass"}  # a prompt may have some; they are cleaned later


class BulkItem(NamedTuple):
    """One item: its sender's name for it, its params as JSON values, perhaps a picture's file.

    `params` are not checked before they are in a worker's hands: a bad item fails alone.
    """

    custom_id: str
    params: dict[str, Any]
    image: bytes | None = None


def pack_items(items: Iterable[BulkItem]) -> bytes:
    """The input blob of a message."""
    packed: bytes = msgpack.packb([[i.custom_id, i.params, i.image] for i in items], **SURROGATES)
    return packed


def check_items(items: Collection[BulkItem]) -> None:
    """Raise `InvalidParams` when one cannot be packed, or its results not stored."""
    try:
        rows = [[item.custom_id, item.params, None] for item in items]
        "".join(item.custom_id for item in items).encode()
        packed = msgpack.packb(rows, **SURROGATES)
        msgpack.unpackb(packed, **SURROGATES)  # not all that packs unpacks
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as e:
        raise InvalidParams(f"the params of an item cannot be sent: {e}") from e


def unpack_items(data: bytes) -> list[BulkItem]:
    """What `pack_items` packed. Raises `InvalidParams` for anything else."""
    try:
        rows = msgpack.unpackb(data, **SURROGATES)
        if not isinstance(rows, list):
            raise TypeError("it is not a list of items")
        return [BulkItem(*_checked(*row)) for row in rows]
    except (ValueError, TypeError, msgpack.UnpackException) as e:
        raise InvalidParams(f"the input of a bulk message cannot be read: {e!r}") from e


def _checked(custom_id: Any, params: Any, image: Any) -> tuple[str, dict[str, Any], bytes | None]:
    good = isinstance(custom_id, str) and isinstance(params, dict)
    if not good or not isinstance(image, bytes | None):
        raise TypeError("an item is not (custom_id, params, image)")
    return custom_id, params, image
