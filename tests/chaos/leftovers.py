"""Checks that a storm leaves no garbage, no orphans, and no workers deaf to remote control."""

import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossmodal.jobs.connection import connect
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import CAPTIONS, RESULTS, job_of_result, result_key
from crossmodal.jobs.record import Job
from crossmodal.jobs.runners import Runner
from crossmodal.processes import wait_until
from crossmodal.storage import open_storage
from producer.commands.gc import Collector
from tests.chaos.audit import PREFIX, Audit
from tests.chaos.callers import Callers
from tests.chaos.traffic import plain_celery
from tests.chaos.world import World

DEAF_S = 120.0
GONE_S = 30.0
EARLIER_S = -3_600.0  # an hour in the future: everything is older
# Keys that last as long as the deployment, or as a record that they name.
LASTING = re.compile(
    rf"{PREFIX}:(events:\d+|queue:[^:]+:stats|dead(:[^:]+)?|letter:.+|api-keys?(:.+)?|workers|models"
    r"|vocabularies|jobs:.*|deliveries:.*|webhooks:stats|paused)|_kombu\.binding\..+"
)


class Leftovers:
    """The checks; each method yields what should not be left."""

    def __init__(self, world: World, callers: Callers) -> None:
        self._world = world
        self._callers = callers
        self._settings = world.settings(through_proxy=False)
        self._storage = open_storage(self._settings)

    def collected(self) -> Iterator[str]:
        """Collect garbage twice; yield if the second collection still finds some."""
        with Runner(self._settings) as runner:
            ledger = JobLedger(self._settings)
            for _ in range(2):
                collector = Collector(runner, ledger, self._storage, EARLIER_S, EARLIER_S)
                found = collector.run()
        if found.removed:
            yield f"garbage was left by a collection of garbage: {found}"

    def in_redis(self, audit: Audit) -> Iterator[str]:
        """Yield keys without an expiry, and keys of unknown jobs."""
        with connect(self._settings) as redis:
            keys = list(redis.scan_iter(count=1_000))
            endless = [key for key in keys if redis.ttl(key) == -1 and not LASTING.fullmatch(key)]
        kinds = Counter(re.sub(r"[0-9a-f-]{12,}", "…", key) for key in endless)
        yield from (f"orphan: {n} keys {kind} without an end" for kind, n in kinds.items())
        for key in keys:
            found = re.match(rf"{PREFIX}:job:([^:]+)", key)
            if found and found[1] not in audit.records:
                yield f"orphan: {key} is of no job"

    def in_store(self, audit: Audit) -> Iterator[str]:
        """Yield results that no record names; of bulk and batch jobs, those of unknown ones."""
        for blob in self._storage.list(RESULTS):
            owner = job_of_result(blob.key)
            job = audit.records.get(owner)
            if job is None and owner not in self._callers.batches:
                yield f"orphan: {blob.key} is of no job"
            if job is not None and not job.task.is_bulk and blob.key not in _named(job):
                yield f"orphan: {blob.key} is not in the record of its job"

    def deaf(self) -> Iterator[str]:
        """Yield workers that never answer to remote control."""
        silent = {worker.celery_name for worker in self._world.workers}
        with plain_celery(self._world) as app:

            def have_answered() -> bool:
                told: list[dict[str, Any]] = app.control.ping(timeout=5)
                silent.difference_update(name for answer in told for name in answer)
                return not silent

            wait_until(have_answered, DEAF_S, 1.0)
        yield from (f"{name} hears nothing" for name in silent)

    def on_machine(self) -> Iterator[str]:
        """Yield processes, sockets and temporary files that outlive the stack."""
        wait_until(lambda: not self._world.survivors(), GONE_S)
        for process in self._world.survivors():
            yield f"orphan: {process.pid} {process.cmdline()}"
        for path in self._world.run_dir.rglob("*"):
            if stat.S_ISSOCK(path.stat().st_mode):
                yield f"orphan: the socket {path}"
        yield from (f"orphan: the temporary file {path}" for path in _files(self._world.temporary))


def _named(job: Job) -> set[str]:
    if job.result is None:
        return set()
    captions = result_key(job.id, CAPTIONS, job.result.attempt)
    return {captions, *(image.key for image in job.result.images)}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]
