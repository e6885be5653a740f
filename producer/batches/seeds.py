"""Seeds for the items of a batch, the same at each submission of the batch."""

import hashlib


def item_seed(batch_id: str, index: int) -> int:
    """Return a seed for an item without one, uniform over 32 bits."""
    digest = hashlib.sha256(f"{batch_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4])
