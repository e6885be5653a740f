"""The asynchronous `openai` client: openai_async.py PICTURE"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)

PNG = b"\x89PNG\r\n\x1a\n"
URL = "/v1/images/generations"


async def draws(client: AsyncOpenAI) -> None:
    call = client.images.generate
    found = await asyncio.gather(*(call(prompt=f"a {c} circle") for c in ("red", "blue")))
    for drawn in found:
        assert base64.b64decode(drawn.data[0].b64_json).startswith(PNG)


async def describes(client: AsyncOpenAI, picture: Path) -> None:
    data = base64.b64encode(picture.read_bytes()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    messages = [{"role": "user", "content": [image]}]
    found = await client.chat.completions.create(model="scenes", messages=messages)
    chunks = await client.chat.completions.create(model="scenes", messages=messages, stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert "circle" in said
    assert said == found.choices[0].message.content


async def follows(client: AsyncOpenAI) -> None:
    events = await client.images.generate(
        model="sketcher", prompt="a fox", stream=True, partial_images=1, extra_body={"steps": 14}
    )
    kinds = [event.type async for event in events]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"], kinds


async def leaves(client: AsyncOpenAI) -> None:
    """In the middle of a stream, and of a call."""
    fields = {"model": "sketcher", "extra_body": {"steps": 200}}
    events = await client.images.generate(
        prompt="stream left", stream=True, partial_images=1, **fields
    )
    async with events:
        assert (await anext(aiter(events))).type == "image_generation.partial_image"
    task = asyncio.create_task(client.images.generate(prompt="task left", **fields))
    await asyncio.wait([task], timeout=2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def is_refused(kind: type[APIError], code: str, call: Awaitable[object]) -> Any:
    [error] = await asyncio.gather(call, return_exceptions=True)
    assert type(error) is kind, error
    assert error.code == code, error.body
    return error


async def all_refusals(client: AsyncOpenAI) -> None:
    stranger = client.with_options(api_key="cm_nobody_0", max_retries=0)
    full = client.with_options(base_url=f"{os.environ['FULL_URL']}/v1", max_retries=0)
    fields = {"model": "sketcher", "prompt": "a fox"}
    wrong = client.images.generate(**fields, extra_body={"stpes": 1})
    assert (await is_refused(BadRequestError, "invalid_params", wrong)).param == "stpes"
    unknown = client.images.generate(model="sktecher", prompt="a fox")
    await is_refused(NotFoundError, "model_not_found", unknown)
    crowded = full.images.generate(model="away", prompt="a fox")
    await is_refused(RateLimitError, "queue_full", crowded)
    await is_refused(AuthenticationError, "unauthorized", stranger.images.generate(**fields))


async def sends_a_batch(client: AsyncOpenAI) -> None:
    body = {"model": "sketcher", "prompt": "a fox", "steps": 1}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": body})
    sent = await client.files.create(file=("a.jsonl", line.encode()), purpose="batch")
    assert sent.id in [file.id async for file in client.files.list()]
    batch = await client.batches.create(
        input_file_id=sent.id, endpoint=URL, completion_window="24h"
    )
    async with asyncio.timeout(120):
        while batch.status == "in_progress":
            await asyncio.sleep(0.2)
            batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    found = json.loads((await client.files.content(batch.output_file_id)).text)
    assert base64.b64decode(found["response"]["body"]["data"][0]["b64_json"]).startswith(PNG)
    assert batch.id in [one.id async for one in client.batches.list()]


async def main() -> None:
    async with AsyncOpenAI() as client:
        await draws(client)
        await describes(client, Path(sys.argv[1]))
        await follows(client)
        await leaves(client)
        await all_refusals(client)
        await sends_a_batch(client)


asyncio.run(main())
