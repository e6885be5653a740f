"""The official `openai` client against a gateway with keys."""

import subprocess
from functools import partial
from pathlib import Path

from crossmodal.jobs.record import Job, JobState
from tests.background import background
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import python_with
from tests.waiting import until

WAIT_S = 30
PYTHON = partial(python_with, "openai")


def jobs_of(world: World, prompt: str) -> list[Job]:
    owner = world.token.split("_")[1]
    return [job for job in world.client.jobs(owner).jobs if job.params.get("prompt") == prompt]


def states(world: World, prompt: str) -> list[JobState]:
    return [job.state for job in jobs_of(world, prompt)]


def test_pictures(world: World) -> None:
    world.run(PYTHON(), "openai_images.py")
    until(lambda: states(world, "left") == [JobState.CANCELED], WAIT_S)


def test_captions(world: World, tmp_path: Path) -> None:
    drawn = world.client.txt2img("a large red circle on a white background", seed=7)
    file = tmp_path / "circle.png"
    file.write_bytes(world.client.read(drawn.result(timeout_s=WAIT_S).images[0]))
    world.run(PYTHON(), "openai_chat.py", file)


def test_batches(world: World, tmp_path: Path) -> None:
    with background(world.env, tmp_path / "background"):
        world.run(PYTHON(), "openai_batches.py")


def test_who_is_killed_leaves_no_running_job(world: World) -> None:
    argv: list[str | Path] = [PYTHON(), SCRIPTS / "draw.py", "killed", "200", "60", "2"]
    caller = subprocess.Popen(argv, env=world.variables)
    try:
        until(lambda: states(world, "killed") == [JobState.RUNNING], WAIT_S)
    finally:
        caller.kill()
        caller.wait()
    until(lambda: states(world, "killed") == [JobState.CANCELED], WAIT_S)


def test_who_asks_again_gets_no_second_picture(world: World) -> None:
    argv: list[str | Path] = [PYTHON(), SCRIPTS / "draw.py", "again", "20", "1", "2"]
    done = subprocess.run(
        argv, env=world.variables, capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert "APITimeoutError" in done.stderr
    until(lambda: states(world, "again") == [JobState.CANCELED] * 3, WAIT_S)
    assert not any(job.result for job in jobs_of(world, "again"))


def test_who_would_wait_in_vain_is_told_to_come_later(world: World) -> None:
    for job in [world.client.txt2img("x", model="sketcher", steps=1) for _ in range(20)]:
        job.result(timeout_s=WAIT_S)  # so that it is known how long one takes
    jobs = [world.client.txt2img("x", model="sketcher", steps=200) for _ in range(200)]
    try:
        until(lambda: is_likely_to_wait(world), WAIT_S)
        assert world.run(PYTHON(), "draw.py", "x", "1", "5", "0") == "wait_too_long True\n"
    finally:
        for job in jobs:
            job.cancel()


def is_likely_to_wait(world: World) -> bool:
    queue = world.client.queue("txt2img", "sketcher")
    wait_s = queue.wait_s(queue.depth)
    return bool(queue.depth and wait_s and wait_s > 5)
