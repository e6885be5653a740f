"""The Celery message of a job: what we send is what Celery sends, and what we take is checked."""

import base64
import json
from typing import Any

import pytest
from celery import Celery
from pydantic import Field

from crossmodal.errors import InvalidMessage, UnknownTask
from crossmodal.jobs.connection import connect, transport_options
from crossmodal.jobs.message import job_of, message_of, parse_message
from crossmodal.jobs.names import RECORDED_HEADER, messages_key, new_job_id
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task, tasks
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from tests.ledgers import Ledger

PARAMS = Txt2ImgParams(prompt="a red circle é", seed=7, metadata={"a": 1})
KNOWN = {task.celery_name for task in tasks()}
LIMIT = 100_000


def sent_by_celery(settings: Settings, **options: Any) -> dict[str, Any]:
    """The message that Celery itself leaves in Redis."""
    with Celery(broker=settings.broker_url.get_secret_value()) as app, connect(settings) as redis:
        app.conf.broker_transport_options = transport_options(settings)
        queue = str(Task("txt2img"))
        app.send_task(Task("txt2img").celery_name, queue=queue, **options)
        message: dict[str, Any] = json.loads(
            str(redis.rpop(messages_key(settings.key_prefix, queue)))
        )
        return message


def call_of(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


def test_our_message_is_the_one_that_celery_would_send_without_what_it_can_do_without(
    settings: Settings,
) -> None:
    ours = json.loads(message_of("job-1", PARAMS))
    theirs = sent_by_celery(settings, task_id="job-1", headers={RECORDED_HEADER: True})
    assert call_of(ours) == [[], {}, {}]
    assert call_of(theirs)[:2] == [[], {}]
    assert not any(call_of(theirs)[2].values())
    assert ours.keys() == theirs.keys()
    of_theirs = theirs["headers"] | {"kwargsrepr": ours["headers"]["kwargsrepr"]}
    assert ours["headers"].items() <= of_theirs.items()
    left_out = theirs["headers"].keys() - ours["headers"].keys()
    given = {name for name in left_out if theirs["headers"][name] not in (None, 0, [], {}, False)}
    assert given == {"origin", "root_id", "timelimit"}
    assert theirs["headers"]["timelimit"] == [None, None]
    left_out = theirs["properties"].keys() - ours["properties"].keys()
    assert left_out == {"reply_to", "delivery_mode"}


def test_what_celery_sends_is_taken(settings: Settings) -> None:
    for options in ({}, {"countdown": 5}, {"expires": 60}, {"args": [1]}):
        message = sent_by_celery(settings, **options)
        assert parse_message(json.dumps(message).encode(), LIMIT, KNOWN) == message


def test_what_a_later_version_adds_to_a_message_is_no_obstacle() -> None:
    message = json.loads(message_of("job-1", PARAMS))
    message["headers"]["new"] = message["new"] = {"any": "thing"}
    assert parse_message(json.dumps(message).encode(), LIMIT, KNOWN) == message


def test_the_metadata_do_not_travel_in_the_message() -> None:
    assert "metadata" not in message_of("job-1", PARAMS)


def test_long_params_are_shown_by_their_beginnings() -> None:
    class Own(Txt2ImgParams):
        weights: list[float] = Field(default_factory=list)

    params = Own(prompt="a" * 900, weights=[0.5] * 10_000)
    shown = json.loads(message_of("job-1", params))["headers"]["kwargsrepr"]
    assert "[0.5, 0.5" in shown
    assert len(shown) < 1_000


def test_a_message_over_the_limit_is_refused_by_its_size_alone() -> None:
    raw = message_of("job-1", PARAMS).encode()
    assert parse_message(raw, len(raw), KNOWN)
    with pytest.raises(InvalidMessage, match=f"{len(raw)} bytes, {len(raw) - 1} are allowed"):
        parse_message(raw, len(raw) - 1, KNOWN)


def test_a_task_that_nobody_has_is_named() -> None:
    with pytest.raises(UnknownTask, match=r"crossmodal\.txt2img"):
        parse_message(message_of("job-1", PARAMS).encode(), LIMIT, set())


def test_the_job_of_a_broken_message_is_found_if_it_can_be() -> None:
    raw = message_of("job-1", PARAMS).encode()
    padded = raw.replace(b'"body": "', b'"body": "' + b"x" * LIMIT)
    assert job_of(raw) == job_of(raw[:-20]) == job_of(padded) == "job-1"
    assert job_of(b"hello") is None


def test_a_job_and_its_message_come_to_be_together(settings: Settings) -> None:
    ledger = Ledger(settings)
    with connect(settings) as redis:
        job_id = new_job_id()
        message = message_of(job_id, PARAMS)
        for _ in range(2):  # a submit that is sent twice, because its reply was lost
            ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", message=message))
        assert redis.lrange(messages_key(settings.key_prefix, "txt2img"), 0, -1) == [message]
    ledger.close()
