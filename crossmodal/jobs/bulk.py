"""The items of a bulk message, as they lie in the object store.

They are one msgpack blob, pictures included: a message costs one upload and one download.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from crossmodal.errors import InvalidParams, described

MEDIA_TYPE = "application/vnd.msgpack"
UNPACKS = frozenset({str, int, float, bool, type(None)})  # without a look, all that packs
ITEM = (frozenset({str}), frozenset({dict}), frozenset({bytes, type(None)}))
SURROGATES = {"unicode_errors": "surrogatepass"}  # a prompt may have some; they are cleaned later
UNPACKED = {**SURROGATES, "max_array_len": 4_096}  # a byte may stand for a list of its own


class BulkItem(NamedTuple):
    """One item: its sender's name for it, its params as JSON values, perhaps a picture's file.

    `params` are not checked before they are in a worker's hands: a bad item fails alone.
    """

    custom_id: str
    params: dict[str, Any]
    image: bytes | None = None


class ItemPacker:
    """Packs items one by one; for one thread at a time."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(**SURROGATES)  # made once: it brings a buffer

    def pack(self, item: BulkItem) -> bytes:
        """An item as it lies in a blob. Raises `InvalidParams` where that cannot be."""
        try:
            item.custom_id.encode()  # or its result could not be stored
            packed: bytes = self._packer.pack(item)
            if not _is_plain(item.params):
                # Not all that packs unpacks, one level deeper than it was packed.
                msgpack.unpackb(join_items([packed]), **UNPACKED)
            return packed
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as e:
            raise InvalidParams(f"the params of an item cannot be sent: {e}") from e


def _is_plain(params: dict[str, Any]) -> bool:
    return {str}.issuperset(map(type, params)) and UNPACKS.issuperset(map(type, params.values()))


def join_items(packed: Sequence[bytes]) -> bytes:
    """The input blob of a message, of items that `ItemPacker` has packed."""
    header: bytes = msgpack.Packer().pack_array_header(len(packed))
    return header + b"".join(packed)


def pack_items(items: Iterable[BulkItem]) -> bytes:
    """The input blob of a message. Raises `InvalidParams`."""
    packer = ItemPacker()
    return join_items([packer.pack(item) for item in items])


def unpack_items(data: bytes) -> list[BulkItem]:
    """What `pack_items` packed. Raises `InvalidParams` for anything else."""
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
