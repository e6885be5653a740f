"""Messages to a user who waits: progress, queues without workers, how to go on.

A thread checks once a second, independent of what is waited for.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from crossmodal.console import note, progress
from crossmodal.errors import CrossmodalError, Interrupted, ResultTimeout
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.queue import Queue
from producer.client import Client
from producer.handle import JobHandle
from producer.place import place

POLL_S = 1.0
NOBODY = "a worker"
NOBODY_AFTER_S = 3.0


def wait_for(client: Client, jobs: Iterable[Job], timeout_s: float | None = None) -> None:
    """Wait until all jobs have ended. Raises `ResultTimeout`, which says how to go on."""
    left = {job.id: job for job in jobs}
    if not left:
        return
    handles = [JobHandle(client, job_id) for job_id in left]
    unserved = Unserved(client, lambda: {job.queue for job in list(left.values())})
    with progress("waiting", len(handles)) as bar:
        task = bar.task_ids[0]

        def check() -> None:
            jobs = list(left.values())
            if jobs and not bar.disable:  # show the last job: it probably ends last
                shown = place(client.status(jobs[-1].id))
                bar.update(task, description=shown if len(handles) == 1 else f"the last: {shown}")
            unserved.check(lambda queue: _is_run(client, jobs, queue))

        try:
            with polling(check):
                for job in client.as_completed(handles, timeout_s):
                    del left[job.id]
                    bar.advance(task)
        except ResultTimeout as e:
            raise ResultTimeout(f"{e}: {how_to_go_on(left)}") from e


@contextmanager
def polling(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` once a second in a thread; errors are left to the waiting caller."""
    ended = Event()

    def run() -> None:
        while not ended.wait(POLL_S):
            with suppress(CrossmodalError):
                check()

    thread = Thread(target=run, name="patience", daemon=True)
    try:
        thread.start()
        yield
    finally:  # also if Ctrl-C comes while the thread starts
        ended.set()
        if thread.ident is not None:
            thread.join()


class Unserved:
    """A check that warns, once per queue, that no worker serves it."""

    def __init__(self, client: Client, queues: Callable[[], set[str]]) -> None:
        self._client = client
        self._queues = queues
        self._told: set[str] = set()
        self._served: set[str] = set()
        self._not_before = time.monotonic() + NOBODY_AFTER_S

    def check(self, is_run: Callable[[str], bool] = lambda queue: False) -> None:
        """Warn of unserved queues; `is_run` says whether a worker still has the queue's job."""
        queues = self._queues() - self._told
        if not queues or time.monotonic() < self._not_before:
            return
        served = {queue for worker in self._client.workers() for queue in worker.queues}
        known = self._client.models(max_age_s=0)
        for queue in sorted(queues - served):
            if known.waits_for(queue) == NOBODY and not is_run(queue):
                self._told.add(queue)
                note(_nobody(queue, " any more" if queue in self._served else ""))
        self._served |= served


def _nobody(queue: str, more: str) -> str:
    """Return that no worker serves a queue, and how to start one."""
    model = Queue.parse(queue).model
    if model is None:
        return (
            f"no worker serves the queue {queue}{more}: start one with `crossmodal worker`, or all "
            "that is needed on this machine with `crossmodal up`"
        )
    return (
        f"no worker serves the model {model}{more}: start one with its folder in CROSSMODAL_MODELS "
        f"(a class of yours also needs CROSSMODAL_ALLOW_MODEL_CODE={model}); `crossmodal models "
        f"forget {model}` removes the name"
    )


def _is_run(client: Client, jobs: Collection[Job], queue: str) -> bool:
    """Whether the first job of a queue runs: a draining worker finishes what it has."""
    job_id = next((job.id for job in jobs if job.queue == queue), None)
    if job_id is None:
        return True
    if client.record(job_id).state is JobState.QUEUED:
        return False
    return client.run(client.ledger.is_leased(job_id))


@contextmanager
def interruptible(submitted: Collection[JobHandle]) -> Iterator[None]:
    """Turn Ctrl-C into a message that says which jobs go on, and how to follow them."""
    try:
        yield
    except KeyboardInterrupt as e:
        ids = [job.id for job in submitted]
        if not ids:
            raise Interrupted("nothing was submitted yet") from e
        which = f"job {ids[0]} goes on" if len(ids) == 1 else f"{len(ids)} jobs go on"
        raise Interrupted(f"{which}: {how_to_go_on(ids)}") from e


def how_to_go_on(ids: Collection[str]) -> str:
    """Return the commands to use for jobs that have not ended."""
    if len(ids) > 1:
        shown = " ".join(ids)
        return f"`crossmodal wait {shown}` waits for them, `crossmodal cancel ID` cancels one"
    [job_id] = ids
    return (
        f"`crossmodal result {job_id}` waits for it and shows what it made, "
        f"`crossmodal cancel {job_id}` cancels it"
    )
