"""What operators ask of Redis, by methods that wait: dead letters, API keys, webhooks."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Call
from crossmodal.jobs.dead import DeadLetters
from crossmodal.jobs.webhooks import Deliveries

P = ParamSpec("P")
T = TypeVar("T")


class Runs(Protocol):
    """What runs calls, and waits for what they come to."""

    def run(self, call: Call[T], /) -> T: ...
    def close(self) -> None: ...


class Waiting:
    """Calls of one kind, and what runs them."""

    def __init__(self, calls: Any, runner: Runs) -> None:
        self.calls = calls
        self.runner = runner


def waited(
    method: Callable[Concatenate[Any, P], Call[T]],
) -> Callable[Concatenate[Any, P], T]:
    """The method of a `Waiting` that makes this call and runs it."""

    @wraps(method)
    def run(self: Waiting, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.runner.run(method(self.calls, *args, **kwargs))

    return run


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
