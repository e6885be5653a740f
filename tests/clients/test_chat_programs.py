"""Requests as programs for chats send them, by their sources, and what they read of the answers.

Of Open WebUI: `routers/images.py` and `routers/openai.py` of 0.12.4. Of LibreChat: its tool
`image_gen_oai`, and its endpoints of other names.
"""

from pathlib import Path

from crossmodal.jobs.record import JobState
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import python_with, script_for_node
from tests.waiting import until


def test_open_webui(world: World, full_url: str, circle: Path) -> None:
    world.run(python_with("aiohttp==3.14.3"), "open_webui.py", circle, FULL_URL=full_url)
    until(lambda: world.states("webui left") == [JobState.CANCELED])


def test_librechat(world: World, full_url: str, circle: Path, tmp_path: Path) -> None:
    script = script_for_node(SCRIPTS / "librechat.mjs", tmp_path, "openai@6.49.0")
    world.run("node", script, circle, FULL_URL=full_url)
    until(lambda: world.states("librechat left") == [JobState.CANCELED])
