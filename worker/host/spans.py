"""The spans of a batch, recorded when it is over: its own, and one in each job's trace."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from crossmodal import tracing
from crossmodal.errors import CrossmodalError
from crossmodal.kinds.task import Task
from worker.host.pipeline import Outcome


class Share(NamedTuple):
    """The part of a caller in a batch, and since when it waited; `trace` is its traceparent."""

    trace: str
    since: float
    outcomes: list[Outcome]


def record_batch(
    task: Task, size: int, shares: Sequence[Share], began: float, ended: float
) -> None:
    """Record the spans of a batch of `size` requests; times are those of `time.monotonic`."""
    traced = [share for share in shares if tracing.is_sampled(share.trace)]
    if not traced:
        return
    epoch = time.time() - time.monotonic()
    began, ended = began + epoch, ended + epoch
    batch = tracing.record(
        "batch", began, ended, links=[share.trace for share in traced], task=task, batch_size=size
    )
    for share in traced:
        tracing.record("batch wait", share.since + epoch, began, share.trace)
        tracing.record(
            "inference",
            began,
            ended,
            share.trace,
            links=[batch] if batch else [],
            code=_code(share.outcomes),
            items=len(share.outcomes),
            batch_size=size,
        )


def _code(outcomes: Sequence[Outcome]) -> str | None:
    return next((o.code for o in outcomes if isinstance(o, CrossmodalError)), None)
