"""Celery's command line for this application: `python -P -m worker.celery worker`."""

import sys

from worker.celery.command import run

if __name__ == "__main__":
    run(*sys.argv[1:])
