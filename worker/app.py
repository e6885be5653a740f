"""The Celery application by its public name: `celery -A worker.app worker`."""

from worker.celery.app import app

__all__ = ["app"]
