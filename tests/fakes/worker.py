"""`crossmodal worker --devices cpu` with a host of fake models.

python -m tests.fakes.worker --concurrency 8 --ready-file FILE
"""

import argparse
from pathlib import Path

from crossmodal import logs
from crossmodal.jobs.server import check_server
from crossmodal.kinds.registry import kinds
from crossmodal.models.catalog import FolderConfig, ModelFolder, Served
from crossmodal.settings import SHIPPED_BUNDLE, load_settings
from worker.crews import crews_of
from worker.devices import Device
from worker.supervisor import Supervisor

HOST = "tests.fakes.host"


def served(*names: str) -> Served:
    """Return models of all kinds, the first the default one; one if none is named."""
    models = [
        ModelFolder(SHIPPED_BUNDLE, "bundle", name, "0", tuple(kinds()), FolderConfig())
        for name in names or ("fake",)
    ]
    return Served(tuple(models), models[0].name)


def main() -> int:
    """Serve until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--bulk-concurrency", type=int, default=1)
    parser.add_argument("--models", default="fake")
    parser.add_argument("--ready-file", type=Path, required=True)
    args = parser.parse_args()
    settings = load_settings()
    logs.configure(settings, process="supervisor")
    check_server(settings)
    sizes = args.concurrency, args.bulk_concurrency
    models = served(*args.models.split(","))
    crews = crews_of(settings, "cpu", models, None, *sizes)
    return Supervisor(settings, [Device("cpu")], crews, models, args.ready_file, HOST).run()


if __name__ == "__main__":
    raise SystemExit(main())
