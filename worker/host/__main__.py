"""Run a model host: `python -P -m worker.host`."""

from worker.host.server import main

main()
