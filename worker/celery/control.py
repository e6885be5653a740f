"""Remote control over Redis, limited to reporting state, enabling events and canceling jobs.

Celery's remote control can also stop a worker, grow its pool without a limit, have it consume any
queue, change its limits, or send its processes signals. All of that needs access to the machine:
the supervisor decides how many processes run, and a scaler how many workers.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery.worker import control, state
from kombu.utils.functional import maybe_list

from crossmodal.errors import BrokerUnavailable, JobNotFound
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import is_job_id

log = logging.getLogger(__name__)

ALLOWED = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "disable_events",
        "enable_events",
        "hello",
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoke",
        "revoked",
        "scheduled",
        "stats",
    }
)
REFUSAL = "not available over Redis: start, stop and limit workers on their own machines"


def restrict() -> None:
    """Limit remote control of this process's worker to the allowed commands."""
    for name in set(control.Panel.data) - ALLOWED:
        control.Panel.data[name] = refused
    control.Panel.data["revoke"] = revoke


def refused(_: Any, **__: Any) -> dict[str, str]:
    """Reply to a command that is not allowed."""
    answer: dict[str, str] = control.nok(REFUSAL)
    return answer


def revoke(panel: Any, task_id: str | Iterable[str], **_: Any) -> Any:
    """Cancel jobs: those in hand now, others when their message comes."""
    ids = set(maybe_list(task_id) or [])
    answer = control.revoke(panel, ids)
    in_hand = {request.id: request for request in tuple(state.requests.values())}
    for job_id in filter(is_job_id, ids):
        try:
            with suppress(JobNotFound):  # the ledger first: what is canceled must not run again
                panel.app.runner.run(JobLedger(panel.app.settings).cancel(job_id))
        except BrokerUnavailable as e:
            log.warning("job %s is not canceled: %s", job_id, e)
            continue
        if job_id in in_hand:  # a job from before a lost connection ends through the ledger
            in_hand[job_id].terminate(panel.consumer.pool)
    return answer
