"""Blocking methods for operators: dead letters, API keys, webhook deliveries."""

from typing import Any

from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.webhooks import Deliveries
from producer.twins import Runs, waited


class Waiting:
    """A group of calls, and the runner that executes them."""

    def __init__(self, calls: Any, runner: Runs) -> None:
        self.calls = calls
        self.runner = runner
        self.run = runner.run


class Keys(Waiting):
    """See `ApiKeys`."""

    create = waited(ApiKeys.create)
    find = waited(ApiKeys.find)
    list = waited(ApiKeys.list)
    revoke = waited(ApiKeys.revoke)
    max_queued = waited(ApiKeys.max_queued)
    throttle = waited(ApiKeys.throttle)
    webhook_secret = waited(ApiKeys.webhook_secret)


class Letters(Waiting):
    """See `DeadLetters`."""

    set_aside = waited(DeadLetters.set_aside)
    list = waited(DeadLetters.list)
    count = waited(DeadLetters.count)
    get = waited(DeadLetters.get)
    drop = waited(DeadLetters.drop)


class Webhooks(Waiting):
    """See `Deliveries`."""

    get = waited(Deliveries.get)
    list = waited(Deliveries.list)
    counts = waited(Deliveries.counts)
