"""What Flower says otherwise than it does by itself: of what is refused, and where it listens."""

import logging
from typing import Any

from flower import urls
from flower.api.control import WorkerShutDown
from tornado import web

from worker.celery.control import REFUSAL


class ShutdownRefused(WorkerShutDown):
    """Workers refuse this; Flower asks for no reply, and would say that it is done."""

    @web.authenticated
    async def post(self, workername: str) -> None:
        if self.is_worker(workername):
            raise web.HTTPError(403, REFUSAL)
        await super().post(workername)


def correct() -> None:
    """Have the Flower of this process say so."""
    urls.handlers.insert(0, (r"/api/worker/shutdown/(.+)", ShutdownRefused))
    logging.getLogger("flower.command").addFilter(_with_brackets)


def _with_brackets(record: logging.LogRecord) -> bool:
    """Put an IPv6 address into brackets where Flower says at which URL it is."""
    args: Any = record.args
    if str(record.msg).startswith("Visit me at http") and ":" in args[1]:
        record.args = (args[0], f"[{args[1]}]", *args[2:])
    return True
