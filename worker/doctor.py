"""`crossmodal doctor`: reports what is reachable and configured, and how to fix what is not."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer

from crossmodal.console import FAILED, Json, print_json, print_table, say
from crossmodal.errors import CrossmodalError
from crossmodal.extras import is_installed, missing, remedy
from crossmodal.jobs.connection import broker_errors, connect, is_reachable
from crossmodal.jobs.http_batches import HttpBatches
from crossmodal.jobs.names import BACKGROUND
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.server import (
    MemoryGuard,
    check_writes,
    eviction_policy,
    open_to_all,
    refuse_cluster,
    warnings,
)
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import tasks
from crossmodal.models.catalog import open_folder, open_served
from crossmodal.settings import Settings, load_settings, redacted
from crossmodal.storage import open_storage
from worker.devices import cores, default_socket, gpu_names

REMEDIES = {
    "queue": "start one with `crossmodal up` where none runs, or correct CELERY_BROKER_URL",
    "store": "set CROSSMODAL_STORAGE_URL to a folder or bucket that this user may write to",
    "models": "set CROSSMODAL_MODELS to a folder of folders, or unset it",
    "bundle": "set CROSSMODAL_BUNDLE to a folder with a model, or unset it",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check; `remedy` is empty when there is nothing to do.

    A finding that is `ok` may still warn: nothing is broken, but jobs could wait, be lost, or be
    read by others.
    """

    subject: str
    ok: bool
    found: str
    remedy: str = ""
    warns: bool = False

    @property
    def mark(self) -> str:
        if not self.ok:
            return "BAD"
        return "warn" if self.warns else "ok"


def doctor(as_json: Json = False) -> None:
    """Check queue, store, bundle, devices and packages; exit status 1 when one is broken."""
    findings = examine()
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        print_table(("", "what", "found"), [(f.mark, f.subject, f.found) for f in findings])
        for advice in dict.fromkeys(f.remedy for f in findings if f.remedy):
            subjects = ", ".join(f.subject for f in findings if f.remedy == advice)
            say(f"\n{subjects}: {advice}")
    if not all(f.ok for f in findings):
        raise typer.Exit(FAILED)


def examine() -> list[Finding]:
    """Run every check, in the order in which a job depends on its subject."""
    try:
        settings = load_settings()
    except CrossmodalError as e:
        return [Finding("settings", False, str(e), "correct the variable and run again")]
    checks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("queue", _queue),
        ("store", _store),
        ("bundle", _bundle),
        ("models", _models),
        ("devices", _devices),
        ("packages", _packages),
        ("flower", _flower),
        ("model host", _host),
    ]
    queue, *others = [_guarded(subject, check, settings) for subject, check in checks]
    try:
        of_redis = [default_user(settings), *workers(settings)] if is_reachable(settings) else []
    except CrossmodalError:  # the first finding reports it
        of_redis = []
    return [queue, *of_redis, *others]


def _guarded(subject: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except CrossmodalError as e:
        return Finding(subject, False, f"{e.code}: {e}", REMEDIES[subject])


def _queue(settings: Settings) -> Finding:
    with broker_errors(settings), connect(settings) as redis:
        refuse_cluster(settings, redis)
        with Runner(settings, what="cli") as runner:
            runner.run(check_writes(settings))
            runner.run(MemoryGuard(settings).check())
        info = redis.info()
        policy = eviction_policy(redis)
        problems = warnings(redis)
    url = redacted(settings.broker_url.get_secret_value())
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    evicts = policy not in ("noeviction", "unknown")
    found = f"{name} {version} at {url}, eviction {policy}"
    return Finding("queue", not evicts, found, "; ".join(problems), warns=bool(problems))


def default_user(settings: Settings) -> Finding:
    """Check whether a Redis that other machines can reach accepts clients without a user name."""
    why = open_to_all(settings)
    if why:
        return Finding(
            "redis users",
            True,
            f"clients without a user name are accepted, and {why}",
            "turn the user `default` off, or give it a password: docs/redis.md has an "
            "ACL file with `user default off`",
            warns=True,
        )
    found = "open, but only to this machine" if why is not None else "a password is required"
    return Finding("redis users", True, found)


def workers(settings: Settings) -> list[Finding]:
    """Count the Celery workers of each queue, and check for a live background process."""
    with Runner(settings, what="cli") as runner:
        recent = runner.run(Workers(settings).recent())
    served = Counter(queue for info in recent for queue in info.queues)
    found = [_served(str(task), served[str(task)]) for task in tasks()]
    return [*found, _background(served[BACKGROUND], settings)]


def _background(count: int, settings: Settings) -> Finding:
    """Check whether webhooks or batch jobs wait for a background process that is missing."""
    subject = "background process"
    if count:
        return Finding(subject, True, str(count))
    with Runner(settings, what="cli") as runner:
        webhooks = runner.run(Deliveries(settings).counts())["pending"]
        batches = len(runner.run(HttpBatches(settings).unfinished()))
    if not webhooks and not batches:
        return Finding(subject, True, "none, and nothing waits for one")
    return Finding(
        subject,
        True,
        f"none: {webhooks} webhooks and {batches} batches wait",
        "start `crossmodal background`, or the whole stack with `crossmodal up`",
        warns=True,
    )


def _served(queue: str, count: int) -> Finding:
    if count:
        return Finding(f"workers of {queue}", True, str(count))
    return Finding(
        f"workers of {queue}",
        True,
        "none: its jobs wait",
        "start a worker with `crossmodal worker`, or the whole stack with `crossmodal up`",
        warns=True,
    )


def _store(settings: Settings) -> Finding:
    open_storage(settings).check()
    return Finding("store", True, f"{settings.storage_url} allows writing, reading and deleting")


def _bundle(settings: Settings) -> Finding:
    found = open_folder(settings.bundle, settings.allowed_model_code)
    whole = ", digests match" if found.format == "bundle" else f", {found.format}"
    return Finding("bundle", True, f"{found.name} {found.version} in {found.folder}{whole}")


def _models(settings: Settings) -> Finding:
    """Check the folders of CROSSMODAL_MODELS, and name those that cannot be served."""
    served = open_served(settings)
    names = ", ".join(found.name for found in served.folders)
    if served.faults:
        faults = "; ".join(f"{name}: {fault}" for name, fault in served.faults.items())
        return Finding(
            "models",
            True,
            f"{names}; not served: {faults}",
            "fix these folders, or remove them from CROSSMODAL_MODELS: `crossmodal models "
            "check FOLDER` gives details",
            warns=True,
        )
    return Finding("models", True, names)


def _devices(settings: Settings) -> Finding:
    gpus = gpu_names()
    listed = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(gpus)) or "no GPU"
    return Finding("devices", True, f"{listed}; {cores()} CPU cores")


def _packages(settings: Settings) -> Finding:
    if lacking := missing("worker"):
        return Finding(
            "packages",
            True,
            f"producer only: {', '.join(lacking)} not installed",
            f"to run a worker here: {remedy('worker')}",
        )
    return Finding("packages", True, "all that a worker needs")


def _flower(settings: Settings) -> Finding:
    if not is_installed("monitor"):
        return Finding("flower", True, "not installed", remedy("monitor"))
    asks = "requires a login" if os.environ.get("FLOWER_BASIC_AUTH") else "open, on loopback"
    return Finding("flower", True, f"installed, {asks}")


def _host(settings: Settings) -> Finding:
    path = settings.host_socket or default_socket("cpu")
    there = path.is_socket()
    return Finding("model host", True, f"{'a' if there else 'no'} stand-alone host at {path}")
