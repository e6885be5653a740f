"""Clients of MCP against `crossmodal mcp`: on stdin and stdout, and over HTTP with keys."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from crossmodal.jobs.record import JobState
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, python_module
from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import node_with, python_with
from tests.waiting import until

ROOT = Path(__file__).parents[2]
WAIT_S = 30
CANCEL_S = 5  # until what nobody waits for is canceled
PYTHON = partial(python_with, "mcp")


def command(world: World, *options: str) -> dict[str, object]:
    """How a client is told to start a server of its own."""
    program, *args = python_module("crossmodal.cli", "mcp", *options)
    return {"command": program, "args": args, "env": world.env}


@pytest.fixture(scope="module")
def url(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that asks for keys."""
    with serving(world, tmp_path_factory.mktemp("mcp") / "log") as (url, _):
        yield url


@contextmanager
def serving(world: World, log: Path) -> Iterator[tuple[str, Child]]:
    port = free_port()
    argv = python_module("crossmodal.cli", "mcp", "--http", "--keys", "--port", str(port))
    with log.open("wb") as output, Stack(world.env, output) as stack:
        child = stack.start("mcp", argv, 20)
        url = f"http://127.0.0.1:{port}/mcp"
        until(lambda: listens(url) or not child.is_alive, WAIT_S)
        assert child.is_alive, log.read_text()
        yield url, child


def listens(url: str) -> bool:
    try:
        return httpx2.post(url, trust_env=False).status_code == 401
    except httpx2.TransportError:
        return False


def states(world: World, prompt: str, owner: str) -> list[JobState]:
    jobs = world.client.jobs(owner).jobs
    return [job.state for job in jobs if job.params.get("prompt") == prompt]


def test_over_stdio(world: World) -> None:
    server, _ = where(world, "", "stdio")
    world.run(PYTHON(), "mcp_agent.py", server, "left by stdio")
    until(lambda: states(world, "left by stdio", "") == [JobState.CANCELED] * 2, WAIT_S)


def test_over_http_with_keys(world: World, url: str) -> None:
    _, owner = where(world, url, "http")
    world.run(PYTHON(), "mcp_agent.py", url, "left by http")
    until(lambda: states(world, "left by http", owner) == [JobState.CANCELED] * 2, WAIT_S)
    assert states(world, "left by http", "") == []


@pytest.mark.parametrize("way", ["stdio", "http"])
def test_a_client_that_dies_leaves_no_running_job(world: World, url: str, way: str) -> None:
    server, owner = where(world, url, way)
    argv: list[str | Path] = [PYTHON(), SCRIPTS / "mcp_draw.py", server, f"died by {way}"]
    agent = subprocess.Popen(argv, env=world.variables)
    try:
        until(lambda: states(world, f"died by {way}", owner) == [JobState.RUNNING], WAIT_S)
    finally:
        agent.kill()
        agent.wait()
    until(lambda: states(world, f"died by {way}", owner) == [JobState.CANCELED], CANCEL_S)


def where(world: World, url: str, way: str) -> tuple[str, str]:
    """A server as the scripts are told of it, and whose its jobs are."""
    own = json.dumps(command(world))
    return (own, "") if way == "stdio" else (url, world.token.split("_")[1])


def test_a_server_that_is_told_to_end_leaves_no_running_job(world: World) -> None:
    with subprocess.Popen(
        python_module("crossmodal.cli", "mcp"),
        env=world.variables | world.env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None
        for message in handshake("told to end"):
            server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
        until(lambda: states(world, "told to end", "") == [JobState.RUNNING], WAIT_S)
        server.terminate()
        until(lambda: states(world, "told to end", "") == [JobState.CANCELED], CANCEL_S)
        assert server.wait(WAIT_S) == 0


def test_a_server_over_http_that_is_told_to_end_leaves_no_running_job(
    world: World, tmp_path: Path
) -> None:
    with serving(world, tmp_path / "log") as (url, child):
        argv: list[str | Path] = [PYTHON(), SCRIPTS / "mcp_draw.py", url, "ended over http"]
        owner = world.token.split("_")[1]
        with subprocess.Popen(argv, env=world.variables, stderr=subprocess.DEVNULL):
            until(lambda: states(world, "ended over http", owner) == [JobState.RUNNING], WAIT_S)
            child.stop(20)
            until(lambda: states(world, "ended over http", owner) == [JobState.CANCELED], WAIT_S)


def handshake(prompt: str) -> Iterator[dict[str, object]]:
    """What a client of an earlier protocol sends until it waits for a picture."""
    arguments = {"prompt": prompt, "model": "sketcher", "params": {"steps": 200}}
    yield {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    yield {"jsonrpc": "2.0", "method": "notifications/initialized"}
    params = {"name": "draw", "arguments": arguments}
    yield {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}


def config_of_the_docs(world: World, folder: Path) -> dict[str, Any]:
    """What the page tells desktop clients, with places that there are here."""
    page = (ROOT / "docs/clients.md").read_text()
    [text] = re.findall(r"```json\n(.*?)```", page.partition("## Agents (MCP)")[2], re.DOTALL)
    config: dict[str, Any] = json.loads(text)
    server = config["mcpServers"]["crossmodal"]
    assert server["command"] == "crossmodal"
    program, *module = python_module("crossmodal.cli")
    args = [str(folder) if arg.startswith("/") else arg for arg in server["args"]]
    assert server["env"].keys() <= world.env.keys()
    server |= {"command": program, "args": [*module, *args], "env": world.env}
    return config


def test_the_inspector(world: World, url: str, tmp_path: Path) -> None:
    folder = node_with("@modelcontextprotocol/inspector@2")
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps(config_of_the_docs(world, tmp_path)))
    inspector = (folder / "node_modules/.bin/mcp-inspector", "--cli")
    here: tuple[str | Path, ...] = ("--config", config, "--server", "crossmodal")
    there = (url, "--transport", "http", "--header", f"Authorization: Bearer {world.token}")
    for way in (here, there):
        listed = world.run(*inspector, *way, "--method", "tools/list", "--strict")
        assert "draw" in [tool["name"] for tool in json.loads(listed)["tools"]]
        asked = ("--method", "tools/call", "--tool-name", "draw", "--tool-arg", "prompt=a red star")
        text, picture = json.loads(world.run(*inspector, *way, *asked))["content"]
        assert text["text"].startswith("job: ")
        assert (picture["type"], picture["mimeType"]) == ("image", "image/png")
    (tmp_path / "star.png").write_bytes(base64.b64decode(picture["data"]))
    asked = ("--method", "tools/call", "--tool-name", "describe", "--tool-arg", "path=star.png")
    [text] = json.loads(world.run(*inspector, *here, *asked))["content"]
    assert "\ncaption: " in text["text"]
