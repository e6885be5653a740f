"""Seeds for the items of a batch: the same ones whenever the batch is submitted again."""

import hashlib


def item_seed(batch_id: str, index: int) -> int:
    """A seed for an item that was given none, spread evenly over 32 bits."""
    digest = hashlib.sha256(f"{batch_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4])
