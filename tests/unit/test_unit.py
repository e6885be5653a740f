"""The processes of one device, of which only a host is started here."""

import sys
from functools import partial
from pathlib import Path

from crossmodal.settings import Settings
from tests.fakes.worker import served
from tests.unit.test_host_process import SERVES, kept_alive
from tests.waiting import until
from worker.crews import crews_of
from worker.devices import Device
from worker.health import UnitFiles
from worker.serving import Serving
from worker.supervisor import served_models
from worker.unit import Unit

ENDS_SLOWLY = """
import signal, socket, sys, time
from pathlib import Path
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
signal.sigwait([signal.SIGTERM])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # another one ends it at once
time.sleep(float(sys.argv[2]))  # in place of sending what it has counted
Path(sys.argv[1] + ".ended").touch()
"""


def a_unit(settings: Settings, folder: Path, *names: str) -> Unit:
    crews = crews_of(settings, "cpu", served(*names))
    queues = [queue for crew in crews for queue in crew.queues]
    models = served_models(served(*names), queues, folder, Device("cpu"))
    return Unit(settings, Device("cpu"), models, crews, UnitFiles(folder, "cpu"))


def test_a_host_is_told_once_to_end_and_may_finish(settings: Settings, short_path: Path) -> None:
    unit = a_unit(settings, short_path, "a", "b")
    sockets = [host.model.socket for host in unit.hosts]
    try:
        for host, socket, takes_s in zip(unit.hosts, sockets, (0.2, 0.6), strict=True):
            host.child.argv = [sys.executable, "-c", ENDS_SLOWLY, str(socket), str(takes_s)]
            until(partial(kept_alive, host))
        unit.stop_hosts(timeout_s=30)
        assert all(socket.with_name(f"{socket.name}.ended").exists() for socket in sockets)
    finally:
        unit.kill_hosts()


def test_a_device_is_ready_also_when_its_default_model_was_given_up(
    settings: Settings, short_path: Path
) -> None:
    """Or a worker whose devices are slow to start would never be ready."""
    unit = a_unit(settings, short_path, "a", "b")
    unit.worker.files.ready.touch()
    unit.worker.files.beat.touch()
    Serving(short_path, "cpu").want(["b"])
    assert not unit.is_ready
    host = unit.hosts[1]
    host.child.argv = [sys.executable, "-c", SERVES, str(host.model.socket)]
    try:
        until(lambda: kept_alive(host))
        assert unit.is_ready
    finally:
        host.child.kill()
