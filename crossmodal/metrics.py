"""Prometheus metrics of workers, model hosts and users of the object store.

A worker's processes write files that their supervisor serves (`worker.metrics_server`); without
CROSSMODAL_METRICS_PORT they count in memory only. Each metric has a row in docs/metrics.md.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from crossmodal.errors import CrossmodalError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
NAME = "PROMETHEUS_MULTIPROC_NAME"  # this project's variable; FOLDER is prometheus_client's

log = logging.getLogger(__name__)


def _name() -> str:
    """Return the name of this process's files, which a restarted process continues."""
    return os.environ.get(NAME) or str(os.getpid())


def count_as(part: str) -> None:
    """Make a forked process count in its own files instead of its parent's."""
    if NAME in os.environ:
        os.environ[NAME] += f"-{part}"


if FOLDER in os.environ:
    multi_process: Any = values.MultiProcessValue  # untyped
    values.ValueClass = multi_process(_name)

WORKER = CollectorRegistry(auto_describe=True)
"""What workers and model hosts count."""
STORAGE = CollectorRegistry(auto_describe=True)
"""What every process counts that uses the object store."""

WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
RUNS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

QUEUE_WAIT = Histogram(
    "crossmodal_queue_wait_seconds",
    "From a job's submission until its last attempt began.",
    ["task"],
    registry=WORKER,
    buckets=WAITS_S,
)
JOB = Histogram(
    "crossmodal_job_seconds",
    "From a job's submission until its end was recorded.",
    ["task"],
    registry=WORKER,
    buckets=WAITS_S,
)
STORE = Histogram(
    "crossmodal_store_seconds",
    "Encoding and storing what a job, or a part of a bulk job, has made.",
    ["task"],
    registry=WORKER,
    buckets=RUNS_S,
)
ITEMS = Counter(
    "crossmodal_items_total",
    "Requests that ended, by outcome (succeeded or failed); a bulk job has many.",
    ["task", "outcome"],
    registry=WORKER,
)

BATCH_WAIT = Histogram(
    "crossmodal_batch_wait_seconds",
    "From a request's arrival at the model host until its batch began.",
    ["task", "device"],
    registry=WORKER,
    buckets=RUNS_S,
)
BATCH_SIZE = Histogram(
    "crossmodal_batch_size",
    "Requests in a batch.",
    ["task", "device"],
    registry=WORKER,
    buckets=SIZES,
)
INFERENCE = Histogram(
    "crossmodal_inference_seconds",
    "One batch on the device.",
    ["task", "device"],
    registry=WORKER,
    buckets=RUNS_S,
)
OUT_OF_MEMORY = Counter(
    "crossmodal_out_of_memory_total",
    "Batches that the device had no memory for; they are halved and run again.",
    ["device"],
    registry=WORKER,
)
MODEL_LOAD = Gauge(
    "crossmodal_model_load_seconds",
    "Loading and warming up the models, when the model host started.",
    ["device"],
    registry=WORKER,
    multiprocess_mode="livemostrecent",
)
GPU_MEMORY = Gauge(
    "crossmodal_gpu_memory_bytes",
    "Memory of a GPU: allocated by tensors, reserved by the model host, and in total.",
    ["device", "kind"],
    registry=WORKER,
    multiprocess_mode="livemostrecent",
)

STORAGE_OPERATIONS = Counter(
    "crossmodal_storage_operations_total",
    "Operations on the object store, by outcome: ok, interrupted, or the code of the error.",
    ["operation", "outcome"],
    registry=STORAGE,
)
STORAGE_TIME = Histogram(
    "crossmodal_storage_seconds",
    "Operations on the object store, the client's own retries included.",
    ["operation"],
    registry=STORAGE,
    buckets=RUNS_S,
)


def job_ended(task: str, queued_s: float, run_s: float, succeeded: int, failed: int) -> None:
    """Count a job whose end was recorded, and its items."""
    with counting():
        QUEUE_WAIT.labels(task).observe(queued_s)
        JOB.labels(task).observe(queued_s + run_s)
        ITEMS.labels(task, "succeeded").inc(succeeded)
        ITEMS.labels(task, "failed").inc(failed)


def output_stored(task: str, took_s: float) -> None:
    """Observe the time to encode and store the output of a job, or of a part of a bulk job."""
    with counting():
        STORE.labels(task).observe(took_s)


@contextmanager
def storage_operation(name: str) -> Iterator[None]:
    """Count and time the operation in the block, by outcome."""
    begun = time.monotonic()
    outcome = "ok"
    try:
        yield
    except CrossmodalError as e:
        outcome = e.code
        raise
    except Exception:  # not an error of the object store
        outcome = "interrupted"
        raise
    finally:
        with counting():
            STORAGE_OPERATIONS.labels(name, outcome).inc()
            STORAGE_TIME.labels(name).observe(time.monotonic() - begun)


@contextmanager
def counting() -> Iterator[None]:
    """Log errors of counting instead of raising: a dead supervisor's files may be gone."""
    try:
        yield
    except OSError as e:
        log.warning("cannot write metrics: %s", e)
