"""A Celery application with the real pool and transport; its tasks do what their arguments say.

`celery -A tests.fakes.toys worker`; its tasks have the names of the real ones. The id of a task
that is about to return is written to the file that `TOY_FILE` names.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject

from crossmodal.kinds.task import tasks
from worker.celery.app import make_app, settings
from worker.celery.pool import CoroutinePool, CoroutineTask

MADE = Path(os.environ["TOY_FILE"])
app = make_app(settings, include=())
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("TOY_SOFT_S", "0"))


class Toy(CoroutineTask):
    """A task that sleeps, and then ends as its argument `do` says."""

    abstract = True
    typing = False
    max_retries = None

    async def work(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        told: Mapping[str, Any] = request["kwargs"]
        if sleep_s := told.get("sleep_s"):
            await self._sleep(request["id"], sleep_s)
        if told.get("do") == "raise":
            raise ZeroDivisionError("unexpected")
        if told.get("do") == "exit":
            raise SystemExit(3)
        if told.get("do") == "cancel itself":
            raise asyncio.CancelledError
        return told

    async def _sleep(self, toy: str, seconds: float) -> None:
        print(f"sleeps {toy}", flush=True)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            print(f"canceled {toy}", flush=True)
            raise

    def conclude(self, outcome: Mapping[str, Any]) -> str:
        do = outcome.get("do", "")
        is_second = bool(self.request.retries or self.request.delivery_info["redelivered"])
        if do == "retry" and not is_second:
            raise self.retry(exc=ValueError("again"), countdown=0.2)
        if do == "requeue" and not is_second:
            raise Reject("for another", requeue=True)
        if do == "reject":
            raise Reject("for nobody", requeue=False)
        if do == "ignore":
            raise Ignore("not wanted")
        if do == "fail":
            raise ValueError("it failed")
        with MADE.open("a") as made:
            made.write(f"{self.request.id}\n")
        return f"made {outcome.get('what', 'nothing')}"


# Injected faults; the arguments of a message name one.
_lost: set[str] = set()  # ids
_on_apply, _start_begun = CoroutinePool.on_apply, CoroutinePool._start_begun


def _faulty_on_apply(
    self: CoroutinePool, target: Any, args: Any = (), kwargs: Any = None, **callbacks: Any
) -> None:
    """Lose a message that Celery has reserved, or raise an error that is not reported."""
    shown = args[2]["kwargsrepr"]
    if "raise it" in shown:
        raise RuntimeError("a fault")
    if "lose it" not in shown or ("once" in shown and args[1] in _lost):
        _on_apply(self, target, args, kwargs, **callbacks)
    _lost.add(args[1])


def _faulty_start_begun(self: CoroutinePool) -> None:
    """Lose some jobs between the two threads."""
    begun = list(self._begun.take())
    for job in begun:
        if "forget it" not in job.request["kwargsrepr"]:
            self._begun.put(job)
    _start_begun(self)


CoroutinePool.on_apply = _faulty_on_apply  # type: ignore[method-assign]
CoroutinePool._start_begun = _faulty_start_begun  # type: ignore[method-assign]


for _kind in tasks():
    app.register_task(type("Run", (Toy,), {"name": _kind.celery_name})())
