"""What a prompt says that the shipped model does not know: told the same way on every surface."""

import asyncio
import json
from pathlib import Path

from mcp import Client as Agent
from mcp_types import TextContent

from crossmodal.jobs.access import ANYBODY, ApiKey
from producer import Client
from producer.mcp.desk import AgentsClient, Desk
from producer.mcp.server import Context, make_server
from tests.at_once import at_once
from tests.conftest import RunningStack
from tests.gateway import Gateway
from tests.integration.test_main_job import WAIT_S, run_cli
from tests.waiting import until

PROMPT = "a lrage red circle, zorgish"
SAID = (
    "the model does not know the words 'lrage' (did you mean 'large'?) and 'zorgish': "
    "they were ignored"
)
LONG = "a red circle " * 30
CUT = "the prompt has 90 known words, of which the model reads 64: it does not read 'red circle"
WAIT = {"Prefer": "wait=60"}


def test_a_client_and_a_notebook_are_told(client: Client) -> None:
    result = client.txt2img(PROMPT).result(timeout_s=WAIT_S)
    assert result.unknown_words == ("lrage", "zorgish")
    assert result.suggestions == {"lrage": "large"}
    assert result.warnings == (SAID,)
    html = result._repr_html_()
    assert html is not None
    assert html.count("they were ignored") == 1


def test_a_client_is_told_what_was_cut(client: Client) -> None:
    [said] = client.txt2img(LONG).result(timeout_s=WAIT_S).warnings
    assert said.startswith(CUT)


def test_a_command_is_told(stack: RunningStack) -> None:
    done = run_cli(stack, "txt2img", PROMPT)
    [told] = [line for line in done.stdout.splitlines() if "were ignored" in line]
    assert told.split(maxsplit=1) == ["warning", SAID]
    assert json.loads(run_cli(stack, "txt2img", PROMPT, "--json").stdout)["warnings"] == [SAID]


def test_items_of_a_batch_are_told(stack: RunningStack, client: Client, tmp_path: Path) -> None:
    [item] = client.map_txt2img([PROMPT])
    assert item.warnings == (SAID,)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"url": "/v1/txt2img", "body": {"prompt": PROMPT}}) + "\n")
    run_cli(stack, "batch", "run", str(source), "-o", str(out))
    assert json.loads(out.read_text())["response"]["body"]["warnings"] == [SAID]


def test_those_who_call_over_http_are_told(gateway: Gateway) -> None:
    http = gateway.http
    job = http.post("/v1/jobs", json={"task": "txt2img", "prompt": PROMPT}, headers=WAIT).json()
    assert job["result"]["warnings"] == [SAID]
    images = http.post("/v1/images/generations", json={"prompt": PROMPT}).json()
    assert images["warnings"] == [SAID]
    streamed = http.post("/v1/images/generations", json={"prompt": PROMPT, "stream": True}).text
    assert json.dumps(SAID) in streamed
    pictures = http.post("/sdapi/v1/txt2img", json={"prompt": PROMPT}).json()
    assert json.loads(pictures["info"])["warnings"] == [SAID]


def test_a_file_of_requests_is_answered_with_it(gateway: Gateway) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"prompt": PROMPT},
    }
    file = {"file": ("in.jsonl", json.dumps(line).encode())}
    http = gateway.http
    sent = http.post("/v1/files", data={"purpose": "batch"}, files=file).json()["id"]
    batch = {
        "input_file_id": sent,
        "endpoint": "/v1/images/generations",
        "completion_window": "24h",
    }
    url = f"/v1/batches/{http.post('/v1/batches', json=batch).json()['id']}"
    until(lambda: http.get(url).json()["status"] == "completed", WAIT_S, "the batch")
    answers = http.get(f"/v1/files/{http.get(url).json()['output_file_id']}/content").text
    assert json.loads(answers)["response"]["body"]["warnings"] == [SAID]


def test_agents_are_told(stack: RunningStack) -> None:
    async def who(_: Context) -> ApiKey:
        return ANYBODY

    async def ask() -> str:
        async with AgentsClient(stack.settings) as client:
            desk = Desk(client, patience_s=WAIT_S, folders=())
            async with Agent(make_server(desk, who, is_public=False)) as agent:
                found = await agent.call_tool("draw", {"prompt": PROMPT})
                return "".join(b.text for b in found.content if isinstance(b, TextContent))

    assert f"warning: {SAID}" in asyncio.run(ask()).splitlines()


@at_once("prompt", ["a red car on a road", "a photo of a dog", "portrait of my cat"])
def test_a_prompt_of_which_no_object_is_known_fails(gateway: Gateway, prompt: str) -> None:
    job = {"task": "txt2img", "prompt": prompt}
    failure = gateway.http.post("/v1/jobs", json=job, headers=WAIT).json()["failure"]
    assert failure["code"] == "unknown_words"
    assert failure["message"].startswith(f"no object of the prompt '{prompt}' is known: ")
    assert (
        "`crossmodal models show NAME`, or GET /v1/models/NAME, lists its words"
        in failure["message"]
    )


def test_the_words_of_the_model_are_listed(stack: RunningStack, gateway: Gateway) -> None:
    [listed] = gateway.http.get("/v1/models").json()["data"]
    one = gateway.http.get("/v1/models/scenes").json()["vocabulary"]
    assert listed["vocabulary"] == one  # they are few
    assert one["count"] == len(one["objects"]) + len(one["words"])
    words = {*one["objects"], *one["words"]}
    assert {"circle", "red", "background"} <= words
    text = run_cli(stack, "models", "show", "scenes").stdout
    assert f"{one['count']} words" in text
    assert all(word in text for word in words)
    told = json.loads(run_cli(stack, "models", "show", "scenes", "--json").stdout)
    assert told["vocabulary"] == one
