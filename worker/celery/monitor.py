"""Flower, guarded against pages of other sites and against task names that senders make up.

It also reports a refused shutdown as refused, and its own URL correctly.
"""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flower import app as flower_app
from flower import command, events, urls
from flower.api.control import WorkerShutDown
from tornado import web
from tornado.httputil import HTTPServerRequest

from crossmodal.addresses import literal
from crossmodal.settings import load_settings
from worker.celery import control
from worker.celery.calls import TASKS

READING = ("GET", "HEAD", "OPTIONS")
REFUSAL = (
    "This Flower requires no login, so it answers only to addresses and names of this network, "
    "and not to pages of other sites: set FLOWER_BASIC_AUTH=user:password, or "
    "CROSSMODAL_PUBLIC_URL.\n"
)


class Refused(web.RequestHandler):
    """The reply to a page of another site."""

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain")
        self.finish(REFUSAL)


class Flower(flower_app.Flower):
    """Flower that, without a login, refuses to be read or used by pages of other sites.

    A site's own name that points here (DNS rebinding) has another Host; a form or a script of the
    site has another Origin.
    """

    public = urlsplit(load_settings().public_url).hostname

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> Any:
        asks = self.options.basic_auth or self.options.auth
        if not asks and not (self._is_ours(request.host) and _is_own_page(request)):
            return self.get_handler_delegate(request, Refused, **more)
        return super().find_handler(request, **more)

    def _is_ours(self, place: str) -> bool:
        """Return whether a Host is a name without dots, an address or the public name."""
        try:
            host = urlsplit(f"//{place}").hostname or ""
        except ValueError:
            return False
        return "." not in host or literal(host) is not None or host == self.public


def _is_own_page(request: HTTPServerRequest) -> bool:
    if request.method in READING:
        return True
    origin, site = (request.headers.get(name, "") for name in ("Origin", "Sec-Fetch-Site"))
    is_own = not origin or origin.partition("://")[2] == request.host
    return is_own and site in ("", "none", "same-origin")


class Metrics(events.PrometheusMetrics):
    """Metrics of workers' events about jobs; a sender could report any task name."""

    def observe_task(self, worker: str, event: Mapping[str, Any], task: Any) -> None:
        name = event.get("name") or task.name or ""
        if event["type"] != "task-sent" and name in TASKS:
            super().observe_task(worker, event, task)


class ShutdownRefused(WorkerShutDown):
    """A handler that refuses a shutdown: workers do, too, but Flower reads no reply."""

    @web.authenticated
    async def post(self, workername: str) -> None:
        if self.is_worker(workername):
            raise web.HTTPError(403, control.REFUSAL)
        await super().post(workername)


def guard() -> None:
    """Make Flower's command use these classes."""
    command.Flower = Flower
    events.PrometheusMetrics = Metrics
    urls.handlers.insert(0, (r"/api/worker/shutdown/(.+)", ShutdownRefused))
    logging.getLogger("flower.command").addFilter(_with_brackets)


def _with_brackets(record: logging.LogRecord) -> bool:
    """Put an IPv6 address into brackets where Flower logs its URL."""
    args: Any = record.args
    if str(record.msg).startswith("Visit me at http") and ":" in args[1]:
        record.args = (args[0], f"[{args[1]}]", *args[2:])
    return True
