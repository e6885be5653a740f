"""`crossmodal worker` on the CPU, before hosts with the fake models.

python -m tests.fakes.worker CONCURRENCY READY_FILE
"""

import sys
from pathlib import Path

from crossmodal import logs
from crossmodal.jobs.server import check_server
from crossmodal.settings import load_settings
from worker.cli import ALL_QUEUES, crews_of, parse_queues
from worker.devices import Device
from worker.supervisor import Supervisor

HOST = "tests.fakes.host"


def main(concurrency: int, ready_file: Path) -> int:
    """Serve until SIGTERM; the exit status."""
    settings = load_settings()
    logs.configure(settings, process="supervisor")
    check_server(settings)
    crews = crews_of(parse_queues(ALL_QUEUES), settings.plain_queue, concurrency, 1)
    return Supervisor(settings, [Device("cpu")], crews, ready_file, HOST).run()


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2])))
