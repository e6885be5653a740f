"""LiteLLM as a proxy before the gateway, with a name for each thing that may go wrong."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from crossmodal.jobs.record import JobState
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from tests.clients.conftest import World
from tests.clients.environments import python_with
from tests.gateway import answers
from tests.waiting import until

LITELLM = "litellm[proxy]==1.105.0"
START_S, STOP_S = 120, 10
MASTER_KEY = "sk-of-the-proxy-itself-0123456789"


def served(world: World, name: str, model: str, **params: Any) -> dict[str, Any]:
    """A model of the proxy's, which is one of the gateway's."""
    here = {"api_base": f"{world.gateway.url}/v1", "api_key": world.token, "max_retries": 0}
    return {"model_name": name, "litellm_params": {"model": f"openai/{model}", **here, **params}}


def config(world: World, full_url: str) -> dict[str, Any]:
    models = [
        served(world, "gpt-image-1", "gpt-image-1"),
        served(world, "sketcher", "sketcher"),
        served(world, "scenes", "scenes"),
        served(world, "nobody", "sktecher"),
        served(world, "stranger", "sketcher", api_key="cm_nobody_0"),
        served(world, "full", "away", api_base=f"{full_url}/v1"),
        served(world, "hasty", "sketcher", timeout=1.5),
    ]
    return {
        "model_list": models,
        "general_settings": {"master_key": MASTER_KEY},
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"num_retries": 0},
    }


@contextmanager
def proxy(python: Path, config: dict[str, Any], folder: Path) -> Iterator[str]:
    """The URL of a proxy that runs."""
    file, log, port = folder / "config.yaml", folder / "log", free_port()
    file.write_text(json.dumps(config))  # which is YAML too
    argv = [
        str(python.parent / "litellm"),
        "--config",
        str(file),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    env = dict(os.environ) | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output, Stack(env, output) as stack, httpx2.Client(base_url=url) as http:
        child = stack.start("litellm", argv, STOP_S)
        until(lambda: answers(http, "/health/liveliness") or not child.is_alive, START_S)
        assert child.is_alive, log.read_text()[-3_000:]
        yield url


def test_all_that_it_passes_on(world: World, full_url: str, circle: Path, tmp_path: Path) -> None:
    python = python_with(LITELLM)
    with proxy(python, config(world, full_url), tmp_path) as url:
        world.run(
            python,
            "litellm_proxy.py",
            circle,
            OPENAI_BASE_URL=f"{url}/v1",
            OPENAI_API_KEY=MASTER_KEY,
        )
    tries = [JobState.CANCELED] * 3  # which it makes of its own
    until(lambda: world.states("proxy left") == tries, START_S)
