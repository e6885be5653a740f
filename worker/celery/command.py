"""Celery's commands, run for our application.

Celery's own, `celery -A worker.app`, imports the application with the working directory first on
Python's path, where a `worker.py` of somebody else may lie.
"""

from importlib import import_module

from crossmodal.console import errors_to_exit_status
from crossmodal.local import flowerconfig


def run(*args: str) -> None:
    """Run a command of Celery's in this process; does not return."""
    import_module("worker.celery.tasks")  # all that is ours, before Celery searches for it
    import_module("celery.bin.celery").celery(["--app", "worker.app", *args])


def flower() -> None:
    """Run Flower, a monitor of workers and jobs. It reads FLOWER_ADDRESS, FLOWER_PORT, …"""
    with errors_to_exit_status():
        import_module("worker.celery.flower_answers").correct()
        run("flower", f"--conf={flowerconfig.__file__}")
