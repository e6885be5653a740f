"""The client of MCP's Python SDK: draws, follows, is refused, and leaves.

mcp_agent.py SERVER LEFT: the server is a URL, or JSON of the command that is one; LEFT is the
prompt of a picture that is canceled while it is drawn.
"""

import asyncio
import base64
import json
import os
import struct
import sys

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

server, left = sys.argv[1:]
token = os.environ["CROSSMODAL_API_KEY"]


def agent(token=token, mode="auto", hear=None):
    if not server.startswith("http"):
        return Client(StdioServerParameters(**json.loads(server)), mode=mode)
    http = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
        trust_env=False,
        event_hooks={"response": [hear] if hear else []},
    )
    return Client(streamable_http_client(server, http_client=http), mode=mode)


def text(result):
    assert not result.is_error, result
    return result.content[0].text


def line(result, name):
    return dict(one.split(": ", 1) for one in text(result).splitlines())[name]


def size(block):
    data = base64.b64decode(block.data)
    assert (block.type, block.mime_type, data[:4]) == ("image", "image/png", b"\x89PNG")
    return struct.unpack(">II", data[16:24])


async def draws_and_describes(client):
    drawn = await client.call_tool("draw", {"prompt": "a large red circle", "seed": 7})
    assert size(drawn.content[1]) == (128, 128)
    assert (line(drawn, "model"), line(drawn, "seed")) == ("scenes", "7")
    key = line(drawn, "image").split(" ")[0]
    for given in ({"data": drawn.content[1].data}, {"key": key}):
        assert "circle" in line(await client.call_tool("describe", given), "caption")
    given = {"prompt": "a fox", "model": "sketcher", "count": 2, "params": {"width": 32}}
    drawn = await client.call_tool("draw", given)
    assert [size(block) for block in drawn.content[1:]] == [(32, 64)] * 2


async def follows(client):
    told = []

    async def listen(progress, total, message):
        told.append((progress, total, message))

    given = {"prompt": "a fox", "model": "sketcher", "params": {"steps": 10}}
    await client.call_tool("draw", given, progress_callback=listen)
    steps = [(progress, total) for progress, total, message in told if "step" in message]
    assert len(steps) > 1, told
    assert {total for _, total in steps} == {10}
    assert "left" in told[-1][2]


async def comes_back(client):
    given = {"prompt": "a fox", "model": "sketcher", "wait": False}
    job = line(await client.call_tool("draw", given), "job")
    assert line(await client.call_tool("job", {"job": job}), "job") == job
    found = await client.call_tool("job", {"job": job, "wait": True})
    assert size(found.content[1]) == (64, 64)


async def cancels(client):
    given = {"prompt": "other", "model": "sketcher", "params": {"steps": 200}, "wait": False}
    job = line(await client.call_tool("draw", given), "job")
    assert line(await client.call_tool("cancel", {"job": job}), "state") == "canceled"
    started = asyncio.Event()

    async def listen(progress, total, message):
        if "step" in message:
            started.set()

    asked = {"prompt": left, "model": "sketcher", "params": {"steps": 200}}
    call = asyncio.create_task(client.call_tool("draw", asked, progress_callback=listen))
    await started.wait()
    call.cancel()
    await asyncio.wait([call])


async def is_refused(client):
    for tool, given, code, words in [
        (
            "draw",
            {"prompt": "a fox", "model": "sketcher", "params": {"stpes": 1}},
            "invalid_params",
            "did you mean 'steps'",
        ),
        (
            "draw",
            {"prompt": "a fox", "model": "sketcher", "params": {"steps": 9_999}},
            "invalid_params",
            "steps",
        ),
        ("draw", {"prompt": "a fox", "model": "sktecher"}, "model_not_found", "'sketcher'"),
        ("draw", {"prompt": ""}, "invalid_prompt", "empty"),
        ("draw", {"prompt": "zorg frob"}, "unknown_words", "zorg"),
        ("describe", {"data": "aGVsbG8="}, "invalid_image", "not a supported image"),
        ("describe", {"key": "results/nobody/1/0.png"}, "blob_not_found", "nobody"),
        ("job", {"job": "nobody"}, "job_not_found", "nobody"),
    ]:
        result = await client.call_tool(tool, given)
        assert result.is_error, (tool, given)
        assert result.structured_content["code"] == code, result
        assert words in result.content[0].text, result


async def lists_models(client):
    models = {one["name"]: one for one in json.loads(text(await client.call_tool("models", {})))}
    assert {"scenes", "sketcher"} <= models.keys()
    assert models["sketcher"]["kinds"]["txt2img"]["params"]["properties"]["steps"]["maximum"] == 200
    assert models["sketcher"]["state"] == "loaded"


async def is_not_let_in():
    statuses = []

    async def hear(response):
        statuses.append(response.status_code)

    try:
        async with agent("cm_nobody_0", hear=hear):
            raise AssertionError("it was let in")
    except* MCPError:
        assert set(statuses) == {401}, statuses


async def main():
    for mode in ("auto", "legacy"):
        async with agent(mode=mode) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {
                "draw",
                "describe",
                "job",
                "cancel",
                "models",
            }
            for check in (draws_and_describes, follows, comes_back, is_refused, lists_models):
                await check(client)
            await cancels(client)
    if server.startswith("http"):
        await is_not_let_in()


asyncio.run(main())
