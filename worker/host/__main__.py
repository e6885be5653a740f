"""Run a model host: `python -m worker.host`."""

from worker.host.server import main

main()
