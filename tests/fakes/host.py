"""A model host with the fake models, ready in a second: python -m tests.fakes.host --socket PATH"""

import os
import time

from crossmodal.errors import InvalidModel
from crossmodal.jobs.record import ModelInfo, ServedKind
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.task import Task
from crossmodal.metrics import MODEL_LOAD
from crossmodal.settings import Settings
from tests.fakes.models import SIDE, FakeModel
from worker.host.batcher import Batcher
from worker.host.lanes import Quiet, core_lanes
from worker.host.pipeline import Pipeline
from worker.host.program import run
from worker.host.protocol import HostInfo
from worker.host.server import ModelHost


def load(settings: Settings, device: str, name: str) -> ModelHost:
    """Load as `worker.host.models` does, without torch: the same lanes, batcher and limits.

    It takes FAKE_LOAD_S seconds, and runs at most FAKE_MAX_BATCH requests at once; a model whose
    name begins with "broken" cannot be loaded.
    """
    begun, model = time.monotonic(), settings.model_name or "fake"
    load_s = float(os.environ.get("FAKE_LOAD_S", "0"))
    time.sleep(load_s)  # in place of loading
    if model.startswith("broken"):
        raise InvalidModel(f"{model} has no weights")
    fake = FakeModel()
    fake.max_batch = int(os.environ.get("FAKE_MAX_BATCH", "0")) or None
    pipelines: dict[Task, Pipeline] = dict.fromkeys(map(Task, kinds()), fake)
    quiet = Quiet()
    lanes = core_lanes(pipelines, quiet, name)
    sizes = settings.max_batch, settings.bulk_batch
    MODEL_LOAD.labels(name).set(time.monotonic() - begun)
    info = HostInfo(model, "0", name, SIDE, os.getpid())
    told = ModelInfo(
        name=model,
        version="0",
        format="bundle",
        load_s=load_s,
        peak_bytes=600,
        kinds={
            name: ServedKind(params=schema_of(kind.params), max_batch=fake.max_batch)
            for name, kind in kinds().items()
        },
    )
    batcher = Batcher(pipelines, lanes, quiet, *sizes, settings.max_wait_s, name)
    return ModelHost(info, batcher, told)


if __name__ == "__main__":
    run(load)
