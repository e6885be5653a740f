"""Event streams, requested as clients do and as none should."""

import random

import httpx2

from tests.fuzz.conftest import Fuzzed
from tests.fuzz.made_up import TEXTS, header, path
from tests.fuzz.tenants import Asked, Tenant, Turns, leaks

CASES = 3  # times `Fuzzed.each`
PATIENCE_S = 2.0  # for a stream that does not end; `/v1/jobs/../events` is one, too
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
    name = turns.name("job_id", tenant) or path(rng.choice(TEXTS))
    where = "/v1/events" if rng.random() < 0.1 else f"/v1/jobs/{name or 'x'}/events"
    headers = dict(tenant.headers)
    if rng.random() < 0.7:
        headers["Last-Event-ID"] = rng.choice(["0-0", "1", header(rng, list(tenant.marks))])
    told = bytearray()
    with http.stream("GET", where, headers=headers) as answer:
        # The gateway answers at once; then it may send nothing for a while.
        answer.request.extensions["timeout"]["read"] = PATIENCE_S
        try:
            for part in answer.iter_raw():
                told += part
        except httpx2.ReadTimeout:
            told = told[: told.rfind(b"\n") + 1]
        return Asked(where, answer.status_code, dict(answer.headers), bytes(told))


def _is_of_a_stream(line: str) -> bool:
    return not line or line.split(":")[0] in ("", "id", "event", "data", "retry")
