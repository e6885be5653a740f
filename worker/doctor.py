"""`crossmodal doctor`: what is reachable, what is configured, and how to mend what is not."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer

from crossmodal.console import FAILED, Json, console, print_json, print_table
from crossmodal.errors import CrossmodalError
from crossmodal.extras import is_installed, missing, remedy
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.server import eviction_policy, refuse_cluster, warnings
from crossmodal.models.bundle import open_bundle
from crossmodal.settings import Settings, load_settings, redacted
from crossmodal.storage import open_storage
from worker.devices import cores, default_socket, gpu_names

REMEDIES = {
    "queue": "start one with `crossmodal up`, or set CELERY_BROKER_URL to a server that runs",
    "store": "set CROSSMODAL_STORAGE_URL to a folder or bucket that this user may write to",
    "bundle": "set CROSSMODAL_BUNDLE to a folder made by `crossmodal train`, or unset it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is empty when there is nothing to do."""

    subject: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(as_json: Json = False) -> None:
    """Check queue, store, bundle, devices and packages; exit status 1 when one is broken."""
    findings = examine()
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        print_table(
            ("", "what", "found"),
            [("ok" if f.ok else "BAD", f.subject, f.found) for f in findings],
        )
        for finding in (f for f in findings if f.remedy):
            console.print(f"\n{finding.subject}: {finding.remedy}", markup=False)
    if not all(f.ok for f in findings):
        raise typer.Exit(FAILED)


def examine() -> list[Finding]:
    """Every check, in the order in which a job would meet its subject."""
    try:
        settings = load_settings()
    except CrossmodalError as e:
        return [Finding("settings", False, str(e), "correct the variable and run again")]
    checks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("queue", _queue), ("store", _store), ("bundle", _bundle), ("devices", _devices),
        ("packages", _packages), ("flower", _flower), ("model host", _host),
    ]  # fmt: skip
    return [_guarded(subject, check, settings) for subject, check in checks]


def _guarded(subject: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except CrossmodalError as e:
        return Finding(subject, False, f"{e.code}: {e}", REMEDIES[subject])


def _queue(settings: Settings) -> Finding:
    with broker_errors(settings), connect(settings) as redis:
        refuse_cluster(settings, redis)
        info = redis.info()
        policy = eviction_policy(redis)
        problems = warnings(redis)
    url = redacted(settings.broker_url.get_secret_value())
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    evicts = policy not in ("noeviction", "unknown")
    found = f"{name} {version} at {url}, eviction {policy}"
    return Finding("queue", not evicts, found, "; ".join(problems))


def _store(settings: Settings) -> Finding:
    open_storage(settings).check()
    return Finding("store", True, f"{settings.storage_url} can be written, read and deleted from")


def _bundle(settings: Settings) -> Finding:
    bundle = open_bundle(settings.bundle)
    return Finding(
        "bundle", True, f"{bundle.name} {bundle.version} in {bundle.folder}, digests match"
    )


def _devices(settings: Settings) -> Finding:
    gpus = gpu_names()
    listed = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(gpus)) or "no GPU"
    return Finding("devices", True, f"{listed}; {cores()} CPU cores")


def _packages(settings: Settings) -> Finding:
    if lacking := missing("worker"):
        return Finding("packages", True, f"a producer only: without {', '.join(lacking)}",
                       f"to run a worker here: {remedy('worker')}")  # fmt: skip
    return Finding("packages", True, "all that a worker needs")


def _flower(settings: Settings) -> Finding:
    if not is_installed("monitor"):
        return Finding("flower", True, "not installed", remedy("monitor"))
    asks = "asks for a login" if os.environ.get("FLOWER_BASIC_AUTH") else "open, on loopback"
    return Finding("flower", True, f"installed, {asks}")


def _host(settings: Settings) -> Finding:
    path = settings.host_socket or default_socket("cpu")
    there = path.is_socket()
    return Finding("model host", True, f"{'a' if there else 'no'} stand-alone host at {path}")
