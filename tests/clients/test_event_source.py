"""`eventsource`, the EventSource of npm, over cut connections and another gateway."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.proxy import Proxy
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import script_for_node
from tests.gateway import running_gateway

DRAW = {"task": "txt2img", "prompt": "a fox", "model": "sketcher", "steps": 60}
Events = Iterator[dict[str, Any]]


@contextmanager
def followed(world: World, script: Path, url: str) -> Iterator[Events]:
    """The events of a job, as they come to a program."""
    argv: list[str | Path] = ["node", script, url]
    with subprocess.Popen(argv, env=world.variables, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            yield (json.loads(line) for line in program.stdout)
        finally:
            program.kill()


def up_to(events: Events, told: list[dict[str, Any]], kind: str, **fields: Any) -> None:
    """Read to the next such event, and write down all."""
    for event in events:
        told.append(event)
        if event["kind"] == kind and event.items() >= fields.items():
            return
    raise AssertionError(f"no {kind} among {told}")


def test_no_event_is_lost_and_none_told_twice(world: World, tmp_path: Path) -> None:
    script = script_for_node(SCRIPTS / "events.mjs", tmp_path, "eventsource@4.1.1")
    told: list[dict[str, Any]] = []
    with running_gateway(world.env, tmp_path, "--keys") as gateway:
        port = int(gateway.url.rpartition(":")[2])
        proxy = Proxy(port)
        with gateway.as_key(world.token) as http:
            job = http.post("/v1/jobs", json=DRAW).json()["id"]
        url = f"http://127.0.0.1:{proxy.port}/v1/jobs/{job}/events"
        with followed(world, script, url) as events:
            up_to(events, told, "state", state="running")
            proxy.reset()
            up_to(events, told, "open")
            up_to(events, told, "progress")
            gateway.child.kill()
            with running_gateway(world.env, tmp_path, "--keys", port=port):
                up_to(events, told, "closed")
        proxy.close()
    states = [event["state"] for event in told if event["kind"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    steps = [event["step"] for event in told if event["kind"] == "progress"]
    assert steps == sorted(steps)
    assert [event["kind"] for event in told].count("open") >= 3
    assert [event["kind"] for event in told][-2:] == ["end", "closed"]
    assert told[-1]["code"] == 204
