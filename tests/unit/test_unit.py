"""The processes of one device, of which only a host is started here."""

import sys
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


def test_a_device_is_ready_also_when_its_default_model_was_given_up(
    settings: Settings, short_path: Path
) -> None:
    """Or a worker whose devices are slow to start would never be ready."""
    crews = crews_of(settings, "cpu", served("a", "b"))
    queues = [queue for crew in crews for queue in crew.queues]
    models = served_models(served("a", "b"), queues, short_path, Device("cpu"))
    unit = Unit(settings, Device("cpu"), models, crews, UnitFiles(short_path, "cpu"))
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
