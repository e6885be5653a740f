"""Bodies that never end, as large as a gateway accepts."""

from pathlib import Path

import httpx2
import psutil
import pytest

from producer import Client
from producer.http.bodies import Budget, largest_body
from tests.bodies import Route, requests_at
from tests.conftest import RunningStack, settings_of
from tests.gateway import running_gateway
from tests.waiting import until

MOST = 600_000_000  # bytes of memory; without a limit it was 1,700,000,000
ROUTES = (Route("/v1/jobs"), Route("/v1/uploads", "image/png", b"\x89PNG"))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_sixty_bodies_that_lack_a_byte_do_not_fill_the_memory(
    stack: RunningStack, tmp_path: Path, route: Route
) -> None:
    settings = settings_of(stack.env)
    length = largest_body(settings) - 100_000
    with Client(settings) as client:
        _, token = client.keys.create("attacker", burst=1_000)
        _, other = client.keys.create("other")
    with (
        running_gateway(stack.env, tmp_path, "--keys") as gateway,
        requests_at(gateway.url) as begin,
    ):
        halves = [begin(route, token, length) for _ in range(60)]
        for half in halves:
            half.send(length - 1)
        share = Budget(settings).share // (length - 1)
        until(lambda: sum(half.is_answered() for half in halves) >= 60 - share - 1, 60, "refusals")
        assert gateway.child.process is not None
        assert psutil.Process(gateway.child.process.pid).memory_info().rss < MOST
        said = {"Authorization": f"Bearer {other}"}
        body = {"task": "txt2img", "prompt": "a red circle"}
        assert httpx2.post(f"{gateway.url}/v1/jobs", json=body, headers=said).status_code == 202
