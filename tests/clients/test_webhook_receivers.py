"""Receivers that verify webhooks with `standardwebhooks`, in Python and in JavaScript."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.background import background
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import python_with, script_for_node

TOLD_S = 60


@pytest.fixture(params=["python", "node"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """The command of a receiver of one delivery, of which it prints what it has verified."""
    if request.param == "python":
        return [python_with("standardwebhooks==1.1.0"), SCRIPTS / "receiver.py"]
    script = script_for_node(SCRIPTS / "receiver.mjs", tmp_path, "standardwebhooks@1.1.1")
    return ["node", script]


def test_a_receiver_verifies_what_it_is_told(
    world: World, receiver: list[str | Path], tmp_path: Path
) -> None:
    with (
        background(world.env, tmp_path / "background"),
        world.gateway.as_key(world.token) as http,
        subprocess.Popen(
            [*receiver, http.get("/v1/webhooks/secret").json()["secret"]],
            stdout=subprocess.PIPE,
            text=True,
        ) as program,
    ):
        try:
            assert program.stdout is not None
            url = program.stdout.readline().strip()
            wanted = {"task": "txt2img", "prompt": "a large red circle", "webhook_url": url}
            job = http.post("/v1/jobs", json=wanted).json()
            said, _ = program.communicate(timeout=TOLD_S)
        finally:
            program.kill()
        assert program.returncode == 0
        told = json.loads(said)
        assert (told["type"], told["data"]["job"]) == ("job.succeeded", job["id"])
        assert http.get(told["data"]["result_url"]).json()["images"]
