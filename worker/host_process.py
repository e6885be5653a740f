"""The model host process of one model on one device, run while wanted and not broken."""

import logging
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from crossmodal.files import write_whole
from crossmodal.jobs.record import Failure
from crossmodal.processes import Child, python_module
from crossmodal.settings import Settings
from worker.devices import Device
from worker.health import HOST
from worker.serving import ServedModel, broken_file, failure_file, info_file
from worker.watched import Watched

log = logging.getLogger(__name__)

MODEL_HOST = "worker.host"
TRIES = 3  # failed loads in a row that make a model broken
STOP_S = 10.0
LOOK_AGAIN_S = 3.0  # time for a live host to beat again after all processes were suspended


class HostProcess:
    """A model host as a child process.

    `module` is the Python module that it runs, `env` its variables in addition to the device's.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        model: ServedModel,
        env: Mapping[str, str],
        gauges: tuple[Path, ...],
        module: str = MODEL_HOST,
    ) -> None:
        self._settings = settings
        self.model = model
        self.beat = model.socket.with_suffix(HOST)
        self.failure: Failure | None = None
        self._failed_loads = 0
        self._silent_since: float | None = None  # by the monotonic clock
        self._ending_since: float | None = None
        self.watched = Watched(
            Child(
                f"host {device.name} {model.name}",
                python_module(
                    module,
                    "--socket",
                    str(model.socket),
                    "--device",
                    device.torch_name,
                    "--name",
                    device.name,
                    "--beat",
                    str(self.beat),
                ),
                {
                    **env,
                    **device.environment(),
                    "CROSSMODAL_BUNDLE": str(model.folder),
                    "CROSSMODAL_MODEL_NAME": model.name,
                },
                death_signal=signal.SIGKILL,
            ),
            says=(
                model.socket,
                info_file(model.socket),
                failure_file(model.socket),
                self.beat,
                *gauges,
            ),
            start_s=settings.load_timeout_s,
        )

    @property
    def child(self) -> Child:
        return self.watched.child

    @property
    def is_ready(self) -> bool:
        """Whether its model is loaded and warm: only then does it listen."""
        return self.child.is_alive and self.model.is_loaded

    @property
    def is_loading(self) -> bool:
        return self.child.is_alive and not self.model.is_loaded

    @property
    def is_broken(self) -> bool:
        """Whether loading its model has failed `TRIES` times; it is not started again."""
        return self._failed_loads >= TRIES

    def keep_alive(self, *, may_load: bool = True) -> None:
        """Kill it if it hangs, and start it if it has ended, unless its model is broken."""
        self._ending_since = None
        self._end_silent()
        if self.is_ready:
            self._failed_loads = 0
        elif self.watched.has_ended:
            self._note_end()
            if not self.is_broken:
                self.watched.note_end()
        if not self.is_broken and (may_load or self.child.is_alive):
            self.watched.keep_alive()

    def end(self) -> None:
        """Stop it without blocking; later calls kill it after `STOP_S`."""
        if not self.child.is_alive:
            self.watched.forget()
        elif self._ending_since is None:
            self._ending_since = time.monotonic()
            self.child.send(signal.SIGTERM)
        elif time.monotonic() - self._ending_since > STOP_S:
            self.child.kill()

    def _note_end(self) -> None:
        """Count failed loads in a row, except those with a retryable cause.

        Its info file tells whether it was loaded: a job may crash it before it was seen ready.
        """
        was_loaded = self.model.is_loaded or info_file(self.model.socket).exists()
        if was_loaded:
            self._failed_loads = 0
        elif not self._said().retryable:
            self._failed_loads += 1
        if self.is_broken:
            self.failure = said = self._said()
            log.error("the model %s is broken: %s: %s", self.model.name, said.code, said.message)
            self.watched.forget()
            write_whole(broken_file(self.model.socket), said.model_dump_json())

    def _said(self) -> Failure:
        """Return the failure that it has reported, or one made from its exit status."""
        try:
            return Failure.model_validate_json(failure_file(self.model.socket).read_bytes())
        except (OSError, ValueError):
            return Failure(
                code="model_invalid",
                message=f"its host ended with status {self.child.returncode} while loading "
                f"{self.model.folder}, {TRIES} times: it may have run out of memory",
            )

    def _end_silent(self) -> None:
        """Kill a host without a heartbeat; one whose device hangs should have ended itself."""
        limit_s = max(self._settings.heartbeat_s, self._settings.inference_timeout_s)
        silent_s = self.watched.silent_s(self.beat)
        if not self.child.is_alive or silent_s <= limit_s:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > LOOK_AGAIN_S:
            log.error("%s has had no heartbeat for %.0f s: killing it", self.child.name, silent_s)
            self.child.kill()
