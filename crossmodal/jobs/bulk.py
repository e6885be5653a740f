"""The input blob of a bulk message: its items in msgpack.

It includes the pictures, so a message costs one upload and one download.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from crossmodal.errors import InvalidParams, described

MEDIA_TYPE = "application/vnd.msgpack"
UNPACKS = frozenset({str, int, float, bool, type(None)})  # whatever packs also unpacks
ITEM = (frozenset({str}), frozenset({dict}), frozenset({bytes, type(None)}))
SURROGATES = {"unicode_errors": "surrogatepass"}  # in prompts; they are cleaned later
UNPACKED = {**SURROGATES, "max_array_len": 4_096}  # one byte may encode a whole list


class BulkItem(NamedTuple):
    """An item: the sender's id, its params as JSON values, and the bytes of a picture, if any.

    Only a worker checks `params`, so that a bad item fails alone.
    """

    custom_id: str
    params: dict[str, Any]
    image: bytes | None = None


class ItemPacker:
    """A packer of items. Not thread-safe."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(**SURROGATES)  # reused, because each allocates a buffer

    def pack(self, item: BulkItem) -> bytes:
        """Pack an item. Raises `InvalidParams` if it cannot be packed or unpacked."""
        try:
            item.custom_id.encode()  # else its result cannot be stored
            packed: bytes = self._packer.pack(item)
            if not _is_plain(item.params):
                # Some nested values that pack do not unpack, one level deeper in the list.
                msgpack.unpackb(join_items([packed]), **UNPACKED)
            return packed
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as e:
            raise InvalidParams(f"the params of an item cannot be sent: {e}") from e


def _is_plain(params: dict[str, Any]) -> bool:
    return {str}.issuperset(map(type, params)) and UNPACKS.issuperset(map(type, params.values()))


def join_items(packed: Sequence[bytes]) -> bytes:
    """Join packed items into the input blob of a message."""
    header: bytes = msgpack.Packer().pack_array_header(len(packed))
    return header + b"".join(packed)


def pack_items(items: Iterable[BulkItem]) -> bytes:
    """Pack items into the input blob of a message. Raises `InvalidParams`."""
    packer = ItemPacker()
    return join_items([packer.pack(item) for item in items])


def unpack_items(data: bytes) -> list[BulkItem]:
    """Unpack the input blob of a message. Raises `InvalidParams` if it is malformed."""
    try:
        rows = msgpack.unpackb(data, **UNPACKED)
        if not isinstance(rows, list):
            raise TypeError("it is not a list of items")
        items = [BulkItem._make(row) for row in rows]
        columns = zip(*items, strict=True)
        if not all(kinds.issuperset(map(type, c)) for kinds, c in zip(ITEM, columns, strict=False)):
            raise TypeError("an item is not (custom_id, params, image)")
        return items
    except (ValueError, TypeError, msgpack.UnpackException) as e:
        raise InvalidParams(f"the input of a bulk message cannot be read: {described(e)}") from e
