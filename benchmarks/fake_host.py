"""A model host without models, to measure the cost of the queue alone.

    python benchmarks/fake_host.py SOCKET SECONDS

Each batch takes SECONDS, whatever its size, and has empty results.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crossmodal.garbage import freeze_gc
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.task import Task
from crossmodal.models.contract import UNWATCHED, Link
from worker.host.batcher import Batcher
from worker.host.lanes import Lane, Quiet
from worker.host.pipeline import Described, HostRequest, Outcome, Pipeline
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost, serve

LIMIT_S = 600.0


class FakeModel(Pipeline):
    """A pipeline that only sleeps."""

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        if self._batch_s:
            time.sleep(self._batch_s)
        return [Described(()) for _ in batch]


async def main(path: Path, batch_s: float) -> None:
    """Serve until SIGTERM."""
    pipelines: dict[Task, Pipeline] = {Task(name): FakeModel(batch_s) for name in kinds()}
    quiet = Quiet()
    lanes = Lane(pipelines, 1), Lane(pipelines, 1, quiet.give_way)
    info = HostInfo("fake", "0", "cpu", 96, os.getpid())
    batcher = Batcher(pipelines, lanes, quiet, max_batch=64, bulk_batch=64)
    freeze_gc()  # as in the real model host
    await serve(ModelHost(info, batcher), path, LIMIT_S)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
