"""Examples gathered into tensors, prepared by a thread while the model trains."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
B = TypeVar("B")


def batched(items: Iterator[T], size: int, collate: Callable[[list[T]], B]) -> Iterator[B]:
    """Batches of exactly `size` items, as long as the items last."""
    while len(chunk := list(islice(items, size))) == size:
        yield collate(chunk)


def prefetched(batches: Iterator[B], depth: int = 3) -> Iterator[B]:
    """The same batches, made ahead by a daemon thread; its errors surface here."""
    ready: queue.Queue[B | BaseException | None] = queue.Queue(depth)

    def produce() -> None:
        try:
            for batch in batches:
                ready.put(batch)
            ready.put(None)
        except Exception as e:  # noqa: BLE001 - handed over to the consumer, which raises it
            ready.put(e)

    threading.Thread(target=produce, daemon=True, name="prefetch").start()
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def padded(vectors: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Ragged word vectors -> (B, T, D) and the mask (B, T) of what is not padding."""
    longest = max(1, max(len(v) for v in vectors))
    words = torch.zeros(len(vectors), longest, vectors[0].shape[1])
    keep = torch.zeros(len(vectors), longest, dtype=torch.bool)
    for i, v in enumerate(vectors):
        words[i, : len(v)] = torch.from_numpy(v)
        keep[i, : len(v)] = True
    return words, keep


def pictures(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 RGB (H, W, 3) each -> float (B, 3, H, W) in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).float().div_(255)
