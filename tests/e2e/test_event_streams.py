"""A thousand people who look at once."""

import asyncio
import json
from pathlib import Path

from producer import Client
from tests.conftest import RunningStack
from tests.e2e.test_page import paused_host
from tests.gateway import running_gateway

STREAMS = 1_000
PROMPT = "a large red circle on a white background"


def test_each_of_a_thousand_streams_gets_every_event_of_its_job(
    stack: RunningStack, tmp_path: Path
) -> None:
    with running_gateway(stack.env, tmp_path) as gateway, Client(stack.settings) as client:
        port = int(gateway.url.rsplit(":", 1)[1])
        told = asyncio.run(_follow_all(stack, client, port))
    assert len(told) == STREAMS
    wrong = [events for events in told if events != ["queued", "running", "succeeded", "end"]]
    assert wrong == []


async def _follow_all(stack: RunningStack, client: Client, port: int) -> list[list[str]]:
    with paused_host(stack):
        jobs = [client.txt2img(PROMPT, seed=i).id for i in range(STREAMS)]
        opened = [asyncio.Event() for _ in jobs]
        streams = [
            asyncio.create_task(_follow(port, job, is_open))
            for job, is_open in zip(jobs, opened, strict=True)
        ]
        for is_open in opened:
            await asyncio.wait_for(is_open.wait(), 100)
    return await asyncio.wait_for(asyncio.gather(*streams), 100)


async def _follow(port: int, job_id: str, is_open: asyncio.Event) -> list[str]:
    """The states that a stream tells until it ends, and `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    told: list[str] = []
    event = ""
    while line := await reader.readline():
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "state":
            told.append(json.loads(value)["state"])
            is_open.set()
        elif name == "data" and event == "end":
            told.append("end")
    writer.close()
    await writer.wait_closed()
    return told
