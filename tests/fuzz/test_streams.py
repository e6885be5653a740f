"""Event streams, as their clients ask for them and as nobody should."""

import random

import httpx2

from tests.fuzz.conftest import Fuzzed
from tests.fuzz.made_up import TEXTS, header
from tests.fuzz.tenants import Asked, Tenant, Turns, leaks

CASES = 3  # for each of those that are made up for an operation
PATIENCE_S = 0.2  # for a stream that does not end
STATUSES = {200, 204, 400, 404, 422, 429}


def test_no_stream_tells_another_key_anything(fuzzed: Fuzzed) -> None:
    rng, turns, cases = random.Random(5), Turns(fuzzed.tenants), CASES * fuzzed.each
    with httpx2.Client(base_url=fuzzed.gateway.url, timeout=30) as http:
        for _ in range(cases):
            tenant = turns.next()
            asked = _asked(http, rng, turns, tenant)
            assert asked.status in STATUSES, asked
            assert not leaks(asked, turns.other(tenant)), asked
            if asked.status == 200:
                assert asked.headers["content-type"].startswith("text/event-stream")
                assert all(_is_of_a_stream(line) for line in asked.body.decode().splitlines())
    fuzzed.note("streams", cases)


def _asked(http: httpx2.Client, rng: random.Random, turns: Turns, tenant: Tenant) -> Asked:
    name = turns.name("job_id", tenant) or httpx2.URL(f"http://x/{rng.choice(TEXTS)}").path[1:]
    path = "/v1/events" if rng.random() < 0.1 else f"/v1/jobs/{name or 'x'}/events"
    headers = dict(tenant.headers)
    if rng.random() < 0.7:
        headers["Last-Event-ID"] = rng.choice(["0-0", "1", header(rng, list(tenant.marks))])
    told = bytearray()
    with http.stream("GET", path.replace("\0", "%00"), headers=headers,
                     timeout=httpx2.Timeout(30, read=PATIENCE_S if "jobs" not in path else 30),
                     ) as answer:  # fmt: skip
        try:
            for part in answer.iter_raw():
                told += part
        except httpx2.ReadTimeout:  # it goes on
            told = told[: told.rfind(b"\n") + 1]
        return Asked(path, answer.status_code, dict(answer.headers), bytes(told))


def _is_of_a_stream(line: str) -> bool:
    return not line or line.split(":")[0] in ("", "id", "event", "data", "retry")
