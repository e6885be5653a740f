"""Clients that speak AUTOMATIC1111's API, `webuiapi` and others, against a gateway with keys."""

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from crossmodal.jobs.record import JobState
from tests.clients.conftest import SCRIPTS, World, made_key
from tests.clients.environments import node_with, python_with
from tests.clients.test_openai import states
from tests.waiting import until

WAIT_S = 30
PYTHON = partial(python_with, "webuiapi==0.9.17")


def test_pictures_and_captions(world: World) -> None:
    own = replace(world, token=made_key(world.env))  # it chooses a model for its key
    own.run(PYTHON(), "webuiapi_pictures.py")
    assert states(own, "long") == [JobState.CANCELED]


def test_the_way_librechat_asks(world: World) -> None:
    modules = node_with("axios@1.13.2") / "node_modules"
    world.run("env", f"NODE_PATH={modules}", "node", "librechat.cjs")


def test_who_is_killed_leaves_no_running_job(world: World) -> None:
    argv: list[str | Path] = [PYTHON(), SCRIPTS / "webuiapi_draw.py", "gone", "200"]
    caller = subprocess.Popen(argv, env=world.variables)
    try:
        until(lambda: states(world, "gone") == [JobState.RUNNING], WAIT_S)
    finally:
        caller.kill()
        caller.wait()
    until(lambda: states(world, "gone") == [JobState.CANCELED], WAIT_S)


def test_a_full_queue_is_said_to_be(world: World) -> None:
    narrow = replace(world, token=made_key(world.env, "--max-queued", "1"))
    running = [world.client.txt2img("busy", model="sketcher", steps=200) for _ in range(8)]
    waiting = subprocess.Popen(
        [PYTHON(), SCRIPTS / "webuiapi_draw.py", "waiting", "200"], env=narrow.variables
    )
    try:
        until(lambda: states(narrow, "waiting") == [JobState.QUEUED], WAIT_S)
        assert narrow.run(PYTHON(), "webuiapi_draw.py", "full", "1") == "429 too_many_queued\n"
    finally:
        waiting.kill()
        waiting.wait()
        for job in running:
            job.cancel()
    until(lambda: states(narrow, "waiting") == [JobState.CANCELED], WAIT_S)
