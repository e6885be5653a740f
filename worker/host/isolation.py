"""Runs a batch so that a bad request harms only itself."""

import logging
import os

from crossmodal.errors import CrossmodalError, GpuOutOfMemory
from crossmodal.metrics import OUT_OF_MEMORY, counting
from crossmodal.models.contract import UNWATCHED, Link
from worker.host.memory import free_memory, is_broken, is_out_of_memory
from worker.host.pipeline import HostRequest, Outcome, Pipeline, failed
from worker.host.previews import PlacedLink

log = logging.getLogger(__name__)


def run_isolated(
    pipeline: Pipeline, requests: list[HostRequest], link: Link = UNWATCHED, device: str = "cpu"
) -> list[Outcome]:
    """Return an outcome for every request, in order. Raises `Canceled`.

    If the batch raises, each request runs alone; if the device is out of memory, in halves.
    """
    outcomes = _run(pipeline, requests, link, device)
    if not isinstance(outcomes, CrossmodalError):
        return outcomes
    # Memory is free only now that the exception is gone, and with it what its frames held.
    if isinstance(outcomes, GpuOutOfMemory):
        free_memory()
    if len(requests) == 1:
        return [outcomes]
    size = (len(requests) + 1) // 2 if isinstance(outcomes, GpuOutOfMemory) else 1
    outcomes = []
    for first in range(0, len(requests), size):
        part = requests[first : first + size]
        placed = PlacedLink(link, range(first, first + len(part)))
        outcomes += run_isolated(pipeline, part, placed, device)
    return outcomes


def _run(
    pipeline: Pipeline, requests: list[HostRequest], link: Link, device: str
) -> list[Outcome] | CrossmodalError:
    try:
        outcomes = pipeline.run(requests, link)
        if len(outcomes) != len(requests):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(requests)} requests")
    except CrossmodalError as e:
        return e.with_traceback(None)
    except Exception as e:  # a model may raise anything; it becomes an outcome
        if is_broken(e):
            log.critical("the device is broken, this host ends: %s", e)
            os._exit(os.EX_UNAVAILABLE)  # so that each request of the batch is tried alone
        if is_out_of_memory(e):
            # Only the text of the error: a log record must not keep what its frames hold.
            log.warning("no memory for a batch of %d: %s", len(requests), str(e))
            with counting():
                OUT_OF_MEMORY.labels(device).inc()
            return GpuOutOfMemory(f"the device has no memory for this request alone: {e}")
        if len(requests) == 1:
            log.exception("the model failed on one request")
        return failed(e)
    return outcomes
