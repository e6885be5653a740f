"""`crossmodal up`: run all processes on this machine until Ctrl-C."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from crossmodal.console import Json, errors_to_exit_status, note, print_json, say
from crossmodal.errors import BrokerUnavailable, InvalidSetting
from crossmodal.extras import is_installed, remedy
from crossmodal.jobs.connection import is_loading, is_reachable
from crossmodal.jobs.names import BACKGROUND
from crossmodal.jobs.record import WorkerInfo
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.server import check_server
from crossmodal.jobs.workers import Workers, is_of
from crossmodal.local.append_only import AppendOnlyFile
from crossmodal.local.claim import claimed
from crossmodal.local.places import Place
from crossmodal.local.stack import READY_S, Stack, StackFailed
from crossmodal.local.valkey import is_local, start_valkey
from crossmodal.machine import check_room
from crossmodal.models.catalog import open_served
from crossmodal.processes import Child, treat_sigterm_as_interrupt, wait_until
from crossmodal.settings import Settings, data_dir, load_settings, redacted
from crossmodal.storage import open_storage

VALKEY_STOP_S = 10.0
POLL_S = 0.2
SAY_S = 20.0  # the interval of messages about what is not ready yet
WIDTH = 12  # of the column of names

# Returns what is ready, as text and as a JSON value; None while it is not.
Check = Callable[[], tuple[str, Any] | None]


def up(
    devices: Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1.")] = "auto",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Max jobs in progress per device.")
    ] = None,
    flower: Annotated[bool, typer.Option(help="Also run Flower.")] = True,
    gateway: Annotated[
        bool, typer.Option(help="Also serve HTTP, the page, webhooks and batches.")
    ] = True,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Show the logs of all processes, with those of each job."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run Valkey (if none answers), a worker, Flower and the gateway; one Ctrl-C stops all."""
    treat_sigterm_as_interrupt()
    options = ["--devices", devices]
    options += ["--concurrency", str(concurrency)] if concurrency else []
    with errors_to_exit_status():
        settings = load_settings()
        try:
            _Up(settings, flower, gateway, verbose, as_json).run(options)
        except KeyboardInterrupt:
            note("stopped")
        except StackFailed as e:
            if e.tail:
                note(e.tail)
            raise


class _Up:
    """One run of `crossmodal up`."""

    def __init__(
        self, settings: Settings, flower: bool, gateway: bool, verbose: bool, as_json: bool
    ) -> None:
        self._settings = settings
        wanted = {"gateway": gateway, "monitor": flower}
        self._absent = [extra for extra in wanted if wanted[extra] and not is_installed(extra)]
        self._gateway = Place.gateway() if gateway and "gateway" not in self._absent else None
        self._flower = Place.flower() if flower and "monitor" not in self._absent else None
        self._verbose = verbose
        self._as_json = as_json
        self._began = time.monotonic()
        self._found: dict[str, Any] = {}
        self._file: AppendOnlyFile | None = None  # of a server that was started here

    def run(self, options: list[str]) -> None:
        """Start all processes, report what is ready, and watch them.

        Never returns: raises an error or `KeyboardInterrupt`.
        """
        queue = redacted(self._settings.broker_url.get_secret_value())
        page = self._gateway.url if self._gateway else None
        with (
            claimed(self._settings, {"queue": queue, "page": page}) as folder,
            tempfile.TemporaryDirectory(prefix="crossmodal-") as temporary,
        ):
            self._check()
            human = {"CROSSMODAL_LOG_FORMAT": "human"}
            env = human if self._settings.log_format == "auto" else {}
            with Stack(*(({},) if self._verbose else (env, folder))) as stack:
                for extra in self._absent:
                    note(f"not starting the {extra}, which is not installed: {remedy(extra)}")
                self._tell("queue", queue + self._ensure_queue(stack), queue)
                self._tell("store", self._settings.storage_url, self._settings.storage_url)
                checks = self._start(stack, options, Path(temporary) / "ready")
                self._wait(stack, checks)
                self._say_ready(None if self._verbose else folder)
                self._watch(stack)

    def _check(self) -> None:
        """Raise an error for what would make a process fail, before any is started."""
        for place in (self._gateway, self._flower):
            if place is not None:
                place.check_free()
        check_room()
        for name, error in open_served(self._settings).faults.items():
            note(f"not serving {name}: {error}")
        open_storage(self._settings).check()

    def _ensure_queue(self, stack: Stack) -> str:
        """Start Valkey if no server answers; return a note for the report, or an empty text."""
        settings = self._settings
        url = settings.broker_url.get_secret_value()
        check_server(settings)
        if is_loading(settings):
            note(f"waiting for Redis at {redacted(url)}, which is loading its data")
            wait_until(lambda: not is_loading(settings), READY_S, POLL_S)
            check_server(settings)
        if is_reachable(settings):
            return ""
        if not is_local(url):
            raise BrokerUnavailable(
                f"no Redis answers at {redacted(url)}, and `up` starts one only at 127.0.0.1 and "
                "without a password: check CELERY_BROKER_URL"
            )
        port = urlsplit(url).port or 6379
        _check_free(port)
        folder = data_dir() / f"valkey-{port}"  # two servers must never write the same files
        stack.add(start_valkey(folder, port), VALKEY_STOP_S)
        self._file = AppendOnlyFile(url)
        return f"  (started Valkey, its data in {folder})"

    def _start(self, stack: Stack, options: list[str], ready_file: Path) -> dict[str, Check]:
        """Start all other processes; return the check of readiness for each, by name."""
        worker = stack.start_worker(options, self._settings.drain_s, ready_file)
        checks: dict[str, Check] = {}
        flower = self._flower if self._flower and stack.start_flower() else None
        if gateway := self._gateway:
            page = stack.start_gateway(flower.url if flower else "")
            if page is not None:
                background = stack.start_background()
                checks["page"] = lambda: (page, page) if gateway.answers() else None
                checks["API"] = lambda: (
                    (f"{page}/v1, described at {page}/docs", f"{page}/v1")
                    if gateway.answers()
                    else None
                )
                checks[BACKGROUND] = lambda: self._is_at_work(background)
        if flower:
            checks["flower"] = lambda: (flower.url, flower.url) if flower.answers() else None
        checks["worker"] = lambda: self._serves(worker) if ready_file.exists() else None
        return checks

    def _serves(self, worker: Child) -> tuple[str, Any] | None:
        """Return a worker's devices and the models that their model hosts serve."""
        served = {
            info.device: {
                "device": info.device,
                "model": info.model,
                "bundle_version": info.bundle_version,
                "models": info.models,
                "loading": info.loading,
            }
            for info in self._workers_of(worker)
            if info.device
        }
        if not served:
            return None
        return "; ".join(map(_on_device, served.values())), list(served.values())

    def _is_at_work(self, background: Child) -> tuple[str, Any] | None:
        ready = any(BACKGROUND in info.queues for info in self._workers_of(background))
        return ("sends webhooks, runs batches", True) if ready else None

    def _workers_of(self, supervisor: Child) -> list[WorkerInfo]:
        """Return what a supervisor's workers announced; empty while Redis does not answer."""
        with suppress(BrokerUnavailable), Runner(self._settings) as runner:
            recent = runner.run(Workers(self._settings).recent())
            return [info for info in recent if is_of(info.name, supervisor.pid or 0)]
        return []

    def _wait(self, stack: Stack, checks: dict[str, Check]) -> None:
        """Report each part as soon as it is ready. Raises `StackFailed`."""

        def is_ready() -> bool:
            stack.check()
            for name, check in list(checks.items()):
                if (found := check()) is not None:
                    self._tell(name, *found)
                    del checks[name]
            return not checks

        deadline = time.monotonic() + READY_S
        while not wait_until(is_ready, SAY_S, POLL_S):
            if time.monotonic() > deadline and set(checks) != {"worker"}:
                raise StackFailed(f"not ready within {READY_S:g} s: {', '.join(checks)}")
            loads = ", which is loading its model" if "worker" in checks else ""
            note(f"still waiting for {', '.join(checks)}{loads}")

    def _watch(self, stack: Stack) -> None:
        """Wait until Ctrl-C, or raise `StackFailed` when a process ends by itself."""

        def has_ended() -> bool:
            if self._file is not None:
                self._file.look()
            return stack.dead() is not None

        try:
            wait_until(has_ended, float("inf"), POLL_S)
        except KeyboardInterrupt:
            note("stopping: waiting for running jobs to finish")
            raise
        stack.check()

    def _tell(self, name: str, text: str, value: Any) -> None:
        self._found[name.lower()] = value
        (note if self._as_json else say)(f"{name:<{WIDTH}}{text}")

    def _say_ready(self, logs: Path | None) -> None:
        self._found["logs"] = str(logs) if logs else None
        if logs is not None:
            self._tell("logs", str(logs), str(logs))
        if self._as_json:
            absent = dict.fromkeys(("page", "api", BACKGROUND, "flower"))
            print_json({"pid": os.getpid(), **absent, **self._found})
            return
        took_s = time.monotonic() - self._began
        say(f"ready in {took_s:.0f} s; Ctrl-C stops all of it")
        say('try  crossmodal txt2img "a large red circle on a white background" -o circle.png')


def _check_free(port: int) -> None:
    """Raise `InvalidSetting` if a program other than Redis listens at the queue's port."""
    if Place("queue", "", "127.0.0.1", port).answers():
        raise InvalidSetting(
            f"the program that listens at 127.0.0.1:{port} is not Redis: set CELERY_BROKER_URL to "
            "another port, such as redis://127.0.0.1:6380/0"
        )


def _on_device(served: dict[str, Any]) -> str:
    """Format a device and its models: the default one with its version, then the others."""
    others = [name for name in served["models"] if name != served["model"]]
    parts = [f"{served['device']}: {served['model']} {served['bundle_version']}", *others]
    loading = f", loading {', '.join(served['loading'])}" if served["loading"] else ""
    return ", ".join(parts) + loading
