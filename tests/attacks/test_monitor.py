"""Flower of `crossmodal up` serves its user, and neither web pages nor senders of messages."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossmodal.local.flowerconfig import MAX_KWARGS, format_task
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from tests.at_once import at_once
from tests.conftest import RunningStack
from tests.integration.test_main_job import send_plain
from tests.waiting import until

WAIT_S = 60


@pytest.fixture(scope="module")
def flower(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a Flower without a login."""
    place = f"127.0.0.1:{(port := free_port())}"
    env = {
        **stack.env,
        "FLOWER_PORT": str(port),
        "FLOWER_UNAUTHENTICATED_API": "true",
        "CROSSMODAL_PUBLIC_URL": "https://us.example",
    }
    log: Path = tmp_path_factory.mktemp("flower") / "log"
    with log.open("wb") as output, Stack(env, output) as running:
        assert running.start_flower()
        until(lambda: is_up(place), WAIT_S, "Flower")
        yield place


def is_up(place: str) -> bool:
    try:
        return asked(place, place)[0] == 200
    except OSError:
        return False


def asked(
    place: str, host: str, path: str = "/api/workers", method: str = "GET", **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(place, timeout=WAIT_S)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Host": host, **sent})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@at_once("host", ["evil.example", "127.0.0.1.evil.example:5555", "localhost.evil.example", "[::1"])
def test_a_name_that_leads_here_is_not_answered(flower: str, host: str) -> None:
    for path in ("/", "/api/workers", "/metrics", "/static/js/flower.js", "/nothing"):
        assert asked(flower, host, path)[0] in (400, 403), path


@at_once("host", ["localhost:5555", "127.0.0.1:9", "[::1]:5555", "flower:5555", "us.example"])
def test_an_address_and_a_name_of_this_network_are_answered(flower: str, host: str) -> None:
    assert asked(flower, host)[0] == 200


@at_once(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
)
def test_a_page_of_another_site_cancels_nothing(flower: str, headers: dict[str, str]) -> None:
    path = "/api/task/revoke/a-job"
    assert asked(flower, flower, path, "POST", **headers)[0] == 403
    assert asked(flower, flower, path, "POST", Origin=f"http://{flower}")[0] == 200


def test_no_header_of_a_sender_becomes_a_name_or_a_label(flower: str, stack: RunningStack) -> None:
    sent: list[str] = []

    def is_told() -> bool:
        """Return whether Flower has seen a job: it requests events every five seconds."""
        made_up: dict[str, Any] = {
            "shadow": "made up",
            "group_id": "made up",
            "headers": {"origin": "made up"},
        }
        sent.append(send_plain(stack, "crossmodal.txt2img", {"prompt": "a circle"}, **made_up))
        told = json.loads(asked(flower, flower, "/api/tasks")[1])
        return any(told[job_id]["name"] for job_id in sent if job_id in told)

    until(is_told, WAIT_S, "an event of a job")
    told = json.loads(asked(flower, flower, "/api/tasks")[1])
    names = {told[job_id]["name"] for job_id in sent if job_id in told}
    assert names - {None} == {"crossmodal.txt2img"}  # None: Flower missed its first event
    metrics = asked(flower, flower, "/metrics")[1]
    assert 'task="crossmodal.txt2img"' in metrics
    assert "made up" not in metrics


@at_once("part", ["'prompt': '", "'prompt': \"" + "x" * 90, "', "])
def test_what_is_shown_of_arguments_takes_no_time_however_long_they_are(part: str) -> None:
    task: Any = SimpleNamespace(kwargs=part * 200_000)
    began = time.process_time()
    assert len(format_task(task).kwargs) <= MAX_KWARGS
    assert time.process_time() - began < 1.0
