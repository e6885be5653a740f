"""What the queue costs beside the model: jobs a second through it, over the bare pipeline's.

    make bench

Both run on the same machine, one after the other, three times; the ratio of the medians
counts. The bare side calls the pipeline in this process, in batches of `max_batch`; the
other submits every job through Redis, Celery, the model host and the object store.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from crossmodal.console import print_table
from crossmodal.jobs.params import Txt2ImgParams
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.models.bundle import open_bundle
from crossmodal.pipelines.base import Request
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.settings import load_settings
from producer import Client

PROMPT = "a large red circle on a white background"
JOBS, ROUNDS = 300, 3


def bare(pipeline: Txt2ImgPipeline, max_batch: int) -> float:
    """Pictures a second of the pipeline alone."""
    started = time.perf_counter()
    for first in range(0, JOBS, max_batch):
        seeds = range(first, min(first + max_batch, JOBS))
        pipeline.run([Request(Txt2ImgParams(prompt=PROMPT, seed=s)) for s in seeds])
    return JOBS / (time.perf_counter() - started)


def queued(client: Client) -> tuple[float, float]:
    """Jobs a second from the first submit to the last result, and submits a second."""
    started = time.perf_counter()
    jobs = [client.txt2img(PROMPT, seed=s) for s in range(JOBS)]
    submitted = time.perf_counter()
    for _ in client.as_completed(jobs, timeout_s=300):
        pass
    return JOBS / (time.perf_counter() - started), JOBS / (submitted - started)


def main() -> None:
    """Measure both, print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        os.environ.update(
            {
                "CELERY_BROKER_URL": valkey_url(port),
                "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri(),
            }
        )
        settings = load_settings()
        pipeline = Txt2ImgPipeline(open_bundle(settings.bundle), torch.device("cpu"))
        with (folder / "log").open("wb") as log, Stack({}, log) as stack:
            stack.add(start_valkey(folder / "valkey", port), 10)
            stack.start_worker(["--devices", "cpu"], 60, folder / "ready")
            stack.wait_ready(folder / "ready")
            with Client(settings) as client:
                queued(client)  # warm
                rounds = [(bare(pipeline, settings.max_batch), *queued(client))
                          for _ in range(ROUNDS)]  # fmt: skip
    model, jobs, submits = (statistics.median(column) for column in zip(*rounds, strict=True))
    print_table(
        ("", "per second", "of the bare model"),
        [("bare model", model, 1.0), ("through the queue", jobs, jobs / model),
         ("submitting", submits, None)],
    )  # fmt: skip


if __name__ == "__main__":
    main()
