"""Celery's commands, run for this application.

`celery -A worker.app` imports the application with the working directory first on Python's path,
where an unrelated `worker.py` may lie.
"""

from importlib import import_module

from crossmodal.console import errors_to_exit_status
from crossmodal.jobs.server import check_server
from crossmodal.local import flowerconfig
from crossmodal.settings import load_settings


def run(*args: str) -> None:
    """Run a Celery command in this process; does not return."""
    import_module("worker.celery.tasks")  # imported first, so that Celery does not search for it
    import_module("celery.bin.celery").celery(["--app", "worker.app", *args])


def flower() -> None:
    """Run Flower, a monitor of workers and jobs. It reads FLOWER_ADDRESS, FLOWER_PORT, …"""
    with errors_to_exit_status():
        check_server(load_settings())
        import_module("worker.celery.monitor").guard()
        run("flower", f"--conf={flowerconfig.__file__}")
