"""A model host with the fake models, ready in a second: python -m tests.fakes.host --socket PATH"""

import os

from crossmodal.jobs.names import Task
from crossmodal.pipelines.base import Pipeline
from crossmodal.settings import Settings
from tests.fakes.models import SIDE, FakeModel
from worker.host.batcher import Batcher
from worker.host.lanes import Quiet, core_lanes
from worker.host.program import run
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost


def load(settings: Settings, device: str, name: str) -> ModelHost:
    """As `worker.host.models` does, without torch: the same lanes, batcher and limits."""
    pipelines: dict[Task, Pipeline] = dict.fromkeys((Task.TXT2IMG, Task.IMG2TXT), FakeModel())
    quiet = Quiet()
    lanes = core_lanes(pipelines, quiet, name)
    sizes = settings.max_batch, settings.bulk_batch
    info = HostInfo("fake", "0", name, SIDE, os.getpid())
    return ModelHost(info, Batcher(pipelines, lanes, quiet, *sizes, settings.max_wait_s, name))


if __name__ == "__main__":
    run(load)
