"""`crossmodal worker --devices cpu`, before a host with the fake models.

python -m tests.fakes.worker --concurrency 8 --ready-file FILE
"""

import argparse
from pathlib import Path

from crossmodal import logs
from crossmodal.jobs.server import check_server
from crossmodal.kinds.task import tasks
from crossmodal.settings import load_settings
from worker.cli import crews_of
from worker.devices import Device
from worker.supervisor import Supervisor

HOST = "tests.fakes.host"


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--bulk-concurrency", type=int, default=1)
    parser.add_argument("--ready-file", type=Path, required=True)
    args = parser.parse_args()
    settings = load_settings()
    logs.configure(settings, process="supervisor")
    check_server(settings)
    sizes = args.concurrency, args.bulk_concurrency
    crews = crews_of(settings, "cpu", [task.queue for task in tasks()], *sizes)
    return Supervisor(settings, [Device("cpu")], crews, args.ready_file, HOST).run()


if __name__ == "__main__":
    raise SystemExit(main())
