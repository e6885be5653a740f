"""Gather examples into batches in worker processes, ahead of the training device."""

import os
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from itertools import count

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from crossmodal.datasets.base import TRAIN, Caption, Dataset, Example, Grounding
from crossmodal.errors import CrossmodalError, InvalidData, TrainingError
from crossmodal.networks.scene_vae import BOX
from crossmodal.vision.preprocess import fit_square

MAX_WORKERS = 8
LEAST = 2  # min pictures for a batch norm whose feature maps are one cell each


@dataclass(frozen=True)
class Batch:
    """A training batch: pictures uint8 (B, 3, side, side), one text each, and skipped pictures.

    For the objects of a text, `present` (B, S) is 1 where a slot holds an object, else 0; `boxes`
    (B, S, 3), `shapes` and `colors` (B, S) and the background color `ground` (B,) are as in
    `Grounding`. All are 0 if the data set has no groundings.
    """

    images: Tensor
    texts: tuple[str, ...]
    present: Tensor
    boxes: Tensor
    shapes: Tensor
    colors: Tensor
    ground: Tensor
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`; on a GPU, pictures are channels-last, for convolutions."""
        moved = self._each(lambda t: t.to(device, non_blocking=True))
        if device.type == "cuda":
            images = moved.images.contiguous(memory_format=torch.channels_last)
            return replace(moved, images=images)
        return moved

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory. Called by torch's data loader."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            present=change(self.present),
            boxes=change(self.boxes),
            shapes=change(self.shapes),
            colors=change(self.colors),
            ground=change(self.ground),
        )

    def pictures(self) -> Tensor:
        """Return the pictures as floats in [0, 1]."""
        return self.images.float().div(255)


@dataclass(frozen=True)
class Source:
    """A source of batches: each depends only on the run's seed and its step number.

    With `complete`, a picture comes with its complete caption if the data set has one; otherwise
    with one of its captions at random.
    """

    data: Dataset
    side: int
    size: int
    seed: int
    complete: bool = False
    slots: int = 3

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        found: list[Example] = []
        skipped = []
        # If too few pictures of a batch can be read, it takes the following ones. A stretch
        # three times as long as the data set holds each picture at least twice.
        last = (step + 1) * self.size + 3 * (self.data.size(TRAIN) or self.size)
        for index in range(step * self.size, last):
            if len(found) >= LEAST and index >= (step + 1) * self.size:
                break
            try:
                found.append(self.data.example(TRAIN, self.seed, index))
            except InvalidData as e:
                skipped.append(str(e))
        if not found:
            skipped = list(dict.fromkeys(skipped))
            raise InvalidData(f"none of {len(skipped)} pictures can be read: {skipped[-1]}")
        captions = [self._caption(e, rng) for e in found]
        images = np.stack([fit_square(e.image, self.side) for e in found])  # (B, H, W, 3)
        texts = tuple(c.text for c in captions)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        known = _grounded([c.grounding for c in captions], self.slots)
        return Batch(pixels, texts, *known, skipped=tuple(skipped))

    def _caption(self, example: Example, rng: np.random.Generator) -> Caption:
        if self.complete and self.data.looks:
            return example.captions[0]
        return example.captions[int(rng.integers(len(example.captions)))]


def _grounded(
    found: list[Grounding | None], slots: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return presence, boxes, shapes, colors and backgrounds, padded with 0 to `slots` slots."""
    present = torch.zeros(len(found), slots, dtype=torch.long)
    boxes = torch.zeros(len(found), slots, BOX)
    shapes, colors = torch.zeros(2, len(found), slots, dtype=torch.long)
    ground = torch.zeros(len(found), dtype=torch.long)
    for i, one in enumerate(found):
        if one is not None:
            there = min(slots, len(one.boxes))
            present[i, :there] = 1
            boxes[i, :there] = torch.from_numpy(one.boxes[:there])
            shapes[i, :there] = torch.from_numpy(one.shapes[:there])
            colors[i, :there] = torch.from_numpy(one.colors[:there])
            ground[i] = one.ground
    return present, boxes, shapes, colors, ground


class _Numbered(TorchDataset[Batch | CrossmodalError]):
    """A map-style torch data set over a source; a `CrossmodalError` is returned as a value."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, step: int) -> Batch | CrossmodalError:
        try:
            return self.source.batch(step)
        except CrossmodalError as e:
            return e


def batches(source: Source, start: int) -> Generator[Batch, None, None]:
    """Yield batch `start` and all later ones in order, prefetched by worker processes."""
    loader = DataLoader(
        _Numbered(source),
        batch_size=None,
        sampler=count(start),
        num_workers=_workers(),
        prefetch_factor=4,
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # its own: the global one is the model's random state
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for batch in loader:
            if isinstance(batch, CrossmodalError):
                raise batch
            yield batch
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
        raise TrainingError(
            f"a data loader process died ({e}): it may need more memory, or more shared memory "
            "(in a container: --shm-size)"
        ) from e


def _workers() -> int:
    """Return the number of worker processes: one per spare core for a GPU, else only one."""
    spare = len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 1
    return max(1, min(spare, MAX_WORKERS)) if torch.cuda.is_available() else 1


def _init_worker(_: int) -> None:
    """Ignore SIGINT and SIGTERM sent to the process group: workers end with the trainer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
