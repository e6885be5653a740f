"""The official `openai` clients, for Python and for JavaScript, against a gateway with keys."""

import base64
import re
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from crossmodal.jobs.record import JobState
from tests.background import background
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import python_with, script_for_node
from tests.waiting import until

README = Path(__file__).parents[2] / "README.md"
WAIT_S = 30
LEFT_S = 2  # within which a job has ended whose caller has gone
PYTHON = partial(python_with, "openai==3.57.0")
NODE = "openai@6.49.0"


@pytest.fixture(params=["python", "node"])
def draw(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """The command that draws, of either client: with PROMPT STEPS TIMEOUT RETRIES."""
    if request.param == "python":
        return [PYTHON(), SCRIPTS / "draw.py"]
    return ["node", script_for_node(SCRIPTS / "draw.mjs", tmp_path, NODE)]


def test_pictures(world: World, full_url: str) -> None:
    world.run(PYTHON(), "openai_images.py", FULL_URL=full_url)
    until(lambda: world.states("left") == [JobState.CANCELED], WAIT_S)


def test_the_example_of_the_readme(world: World, tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(from openai.*?)```", README.read_text(), re.DOTALL)
    example = example.replace("http://127.0.0.1:8000", world.gateway.url)
    example = example.replace('"none"', repr(world.token))
    script = tmp_path / "example.py"
    script.write_text(f"{example}print(drawn.data[0].b64_json)")
    drawn = world.run(PYTHON(), script)
    assert base64.b64decode(drawn).startswith(b"\x89PNG")


def test_captions(world: World, circle: Path) -> None:
    world.run(PYTHON(), "openai_chat.py", circle)


def test_batches(world: World, tmp_path: Path) -> None:
    with background(world.env, tmp_path / "background"):
        world.run(PYTHON(), "openai_batches.py")


def test_all_of_it_asynchronously(
    world: World, full_url: str, circle: Path, tmp_path: Path
) -> None:
    with background(world.env, tmp_path / "background"):
        world.run(PYTHON(), "openai_async.py", circle, FULL_URL=full_url)
    for prompt in ("stream left", "task left"):
        until(lambda: world.states(prompt) == [JobState.CANCELED], WAIT_S)  # noqa: B023


def test_all_of_it_in_javascript(world: World, full_url: str, circle: Path, tmp_path: Path) -> None:
    script = script_for_node(SCRIPTS / "openai.mjs", tmp_path, NODE)
    with background(world.env, tmp_path / "background"):
        world.run("node", script, circle, FULL_URL=full_url)
    for prompt in ("js stream left", "js left"):
        until(lambda: world.states(prompt) == [JobState.CANCELED], WAIT_S)  # noqa: B023


def test_who_is_killed_leaves_no_running_job(world: World, draw: list[str | Path]) -> None:
    prompt = f"killed {draw[0]}"
    caller = subprocess.Popen([*draw, prompt, "200", "60", "2"], env=world.variables)
    try:
        until(lambda: world.states(prompt) == [JobState.RUNNING], WAIT_S)
    finally:
        killed_at = time.time()
        caller.kill()
        caller.wait()
    until(lambda: world.states(prompt) == [JobState.CANCELED], WAIT_S)
    [job] = world.jobs(prompt)
    assert job.finished_at is not None
    assert job.finished_at - killed_at < LEFT_S


def test_who_asks_again_gets_no_second_picture(world: World, draw: list[str | Path]) -> None:
    prompt = f"again {draw[0]}"
    world.run(*draw, prompt, "100", "1", "2")
    until(lambda: world.states(prompt) == [JobState.CANCELED] * 3, WAIT_S)
    assert not any(job.result for job in world.jobs(prompt))


def test_who_would_wait_in_vain_is_told_to_come_later(world: World, draw: list[str | Path]) -> None:
    for job in [world.client.txt2img("x", model="sketcher", steps=1) for _ in range(20)]:
        job.result(timeout_s=WAIT_S)  # so that it is known how long one takes
    jobs = [world.client.txt2img("x", model="sketcher", steps=200) for _ in range(200)]
    try:
        until(lambda: is_likely_to_wait(world), WAIT_S)
        assert world.run(*draw, "x", "1", "5", "0") == "RateLimitError wait_too_long\n"
    finally:
        for job in jobs:
            job.cancel()


def is_likely_to_wait(world: World) -> bool:
    queue = world.client.queue("txt2img", "sketcher")
    wait_s = queue.wait_s(queue.depth)
    return bool(queue.depth and wait_s and wait_s > 5)
