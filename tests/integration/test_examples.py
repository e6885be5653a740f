"""The programs in the documentation, and the commands in the README, as somebody would run them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossmodal.local.valkey import free_port
from producer import Client
from tests.conftest import RunningStack, need
from tests.gateway import Gateway, running_gateway

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PROMPT = "a large red circle on a white background"


@pytest.fixture(scope="module", params=["without a key", "with a key"])
def environment(
    request: pytest.FixtureRequest, stack: RunningStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway, and what its users have in their environment."""
    options: list[str] = []
    key = {}
    if request.param == "with a key":
        with Client(stack.settings) as client:
            key = {"CROSSMODAL_KEY": client.keys.create("examples")[1]}
        options = ["--keys"]
    folder = tmp_path_factory.mktemp("examples")
    with running_gateway(stack.env, folder, *options) as gateway:
        yield gateway, {**os.environ, "CROSSMODAL_URL": gateway.url, **key}


def run(command: list[str], env: dict[str, str]) -> str:
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def test_the_shell_script_draws_and_the_node_script_captions(
    environment: tuple[Gateway, dict[str, str]], tmp_path: Path
) -> None:
    need(shutil.which("curl") is not None, "curl")
    need(shutil.which("node") is not None, "Node")
    _, env = environment
    out = tmp_path / "circle.png"
    run(["sh", str(EXAMPLES / "draw.sh"), PROMPT, str(out)], env)
    assert out.read_bytes().startswith(b"\x89PNG")
    captions = run(["node", str(EXAMPLES / "caption.mjs"), str(out)], env).splitlines()
    assert len(captions) == 3
    assert "red circle" in captions[0]


def refused(command: list[str], env: dict[str, str]) -> str:
    """The one line that an example says where it cannot do what it is for."""
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    [line] = ended.stderr.splitlines()
    return line


def test_the_shell_script_says_why_there_is_no_picture(
    environment: tuple[Gateway, dict[str, str]], tmp_path: Path
) -> None:
    need(shutil.which("curl") is not None, "curl")
    _, env = environment
    command = ["sh", str(EXAMPLES / "draw.sh"), "zorg frob", str(tmp_path / "none.png")]
    assert refused(command, env).startswith("failed unknown_words ")
    assert not (tmp_path / "none.png").exists()


def both(tmp_path: Path) -> list[list[str]]:
    need(shutil.which("curl") is not None, "curl")
    need(shutil.which("node") is not None, "Node")
    return [
        ["sh", str(EXAMPLES / "draw.sh"), PROMPT, str(tmp_path / "none.png")],
        ["node", str(EXAMPLES / "caption.mjs"), str(EXAMPLES / "draw.sh")],
    ]


def test_both_scripts_say_the_detail_where_the_api_refuses(
    environment: tuple[Gateway, dict[str, str]], tmp_path: Path
) -> None:
    _, env = environment
    if "CROSSMODAL_KEY" not in env:
        pytest.skip("nothing is refused to those who send no key")
    for command in both(tmp_path):
        said = refused(command, env | {"CROSSMODAL_KEY": "cm_wrong"})
        assert "API key" in said
        assert "curl:" not in said


def test_both_scripts_say_so_where_no_server_is(tmp_path: Path) -> None:
    nowhere = {**os.environ, "CROSSMODAL_URL": f"http://127.0.0.1:{free_port()}"}
    for command in both(tmp_path):
        assert "127.0.0.1" in refused(command, nowhere)


def test_the_curl_commands_of_the_readme_work_when_pasted(
    environment: tuple[Gateway, dict[str, str]], tmp_path: Path
) -> None:
    need(shutil.which("curl") is not None, "curl")
    gateway, env = environment
    if "CROSSMODAL_KEY" in env:
        pytest.skip("the README shows them without a key")
    text = (ROOT / "README.md").read_text()
    block = text.split("<!-- curl -->")[1].split("```sh\n")[1].split("```")[0]
    pasted = "set -eu\n" + block.replace("http://127.0.0.1:8000", gateway.url)
    ended = subprocess.run(
        ["bash", "-c", pasted], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")
    assert "red circle" in ended.stdout
