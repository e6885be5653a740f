"""The connection for messages: it drops no message, and is never read in vain."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from crossmodal.local.valkey import free_port
from crossmodal.settings import Settings
from producer import Client
from tests.celery_app import celery_app
from tests.waiting import until

QUEUE = "txt2img"
CONNECT_S = 0.5
WAIT_S = 60
PATIENCE_S = 0.2  # of one poll for messages
MOST_LOOKS = 100  # polls within a second: each must wait for its time


@pytest.fixture
def connection(settings: Settings) -> Iterator[Any]:
    own = settings.model_copy(update={"connect_timeout_s": CONNECT_S})
    with celery_app(own) as app, app.connection_for_read() as connection:
        yield connection


@pytest.fixture
def got() -> list[Any]:
    """Return the list of messages delivered to Celery."""
    return []


@pytest.fixture
def channel(connection: Any, got: list[Any]) -> Any:
    """Return a channel that has sent a BRPOP and has no answer yet."""
    channel = connection.channel()
    channel.basic_qos(0, 1, False)
    channel.basic_consume(QUEUE, False, got.append, "consumer")
    look(connection)
    assert channel._in_poll
    return channel


def look(connection: Any) -> None:
    with suppress(socket.timeout):
        connection.drain_events(timeout=PATIENCE_S)


def test_a_process_that_was_held_up_drops_no_message_that_came_meanwhile(
    settings: Settings, connection: Any, channel: Any, got: list[Any]
) -> None:
    """As by SIGSTOP: Redis has answered in time, and has the message in no list any more."""
    with Client(settings) as client:
        client.txt2img("a circle")
    since = time.monotonic()
    until(lambda: time.monotonic() > max(channel._answer_due, since), WAIT_S, "the deadline")

    def is_there() -> bool:
        look(connection)
        return len(got) == 1

    until(is_there, 5, "the message")


def test_a_connection_that_ends_while_there_is_no_room_is_not_read_in_vain(
    connection: Any, channel: Any
) -> None:
    """Else the worker's loop would spin until one of its jobs had ended."""
    for lane in channel.shared.lanes:
        lane.tags |= {str(number) for number in range(lane.limit)}

    def has_ended() -> bool:
        look(connection)
        return not channel._in_poll

    until(has_ended, WAIT_S, "an answer to what was asked while there was room")
    channel.client.connection._sock.shutdown(socket.SHUT_RDWR)
    since, looks = time.monotonic(), 0
    while time.monotonic() - since < 1.0:
        look(connection)
        looks += 1
    assert looks < MOST_LOOKS


def test_a_message_that_comes_when_redis_takes_nothing_back_is_kept(
    settings: Settings, connection: Any, channel: Any
) -> None:
    """The BRPOP was sent before the queue was canceled."""
    with Client(settings) as client:
        client.txt2img("a circle")
    channel._active_queues.remove(QUEUE)
    channel.pool.connection_kwargs["port"] = free_port()
    channel.pool.reset()
    look(connection)
    [(queue, _)] = channel.shared.held
    assert queue == QUEUE
