"""Requests as Open WebUI 0.12.4 sends them: open_webui.py PICTURE"""

import asyncio
import base64
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import aiohttp

BASE, KEY, FULL = (os.environ[n] for n in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "FULL_URL"))
BY_URL = "^gpt-image"  # IMAGE_URL_RESPONSE_MODELS_REGEX_PATTERN


def headers_of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def is_same_origin(url: str, other: str) -> bool:
    one, two = urlparse(url), urlparse(other)
    return (one.scheme, one.hostname, one.port) == (two.scheme, two.hostname, two.port)


async def image_data(session: Any, image: dict[str, Any]) -> tuple[bytes, str]:
    """A picture of an answer; its URL comes first, fetched with the key where that is ours."""
    if url := image.get("url"):
        assert is_same_origin(url, BASE)
        async with session.get(url, headers={"Authorization": f"Bearer {KEY}"}) as reply:
            reply.raise_for_status()
            return await reply.read(), reply.headers["content-type"]
    return base64.b64decode(image["b64_json"]), "image/png"


async def generations(
    session: Any,
    model: str,
    prompt: str,
    n: int = 1,
    size: str | None = None,
    params: dict[str, Any] | None = None,
    key: str = KEY,
    base: str = BASE,
) -> list[tuple[bytes, str]]:
    """`image_generations` of routers/images.py, with `params` from IMAGES_OPENAI_API_PARAMS."""
    data = {
        "model": model,
        "prompt": prompt,
        "n": n,
        **({"size": size} if size else {}),
        **({} if re.match(BY_URL, model) else {"response_format": "b64_json"}),
        **(params or {}),
    }
    url = f"{base}/images/generations"
    async with session.post(url, json=data, headers=headers_of(key)) as reply:
        reply.raise_for_status()
        found = await reply.json(content_type=None)
    return [await image_data(session, image) for image in found["data"]]


async def draws(session: Any) -> None:
    for model, params in (
        ("gpt-image-1", {}),
        ("dall-e-3", {}),
        ("sketcher", {"steps": 1, "negative_prompt": "x"}),
        ("gpt-image-1", {"response_format": "url"}),
    ):
        [(data, kind)] = await generations(
            session, model, "a red circle", size="512x512", params=params
        )
        assert data.startswith(b"\x89PNG")
        assert kind == "image/png"
    assert len(await generations(session, "sketcher", "a fox", n=2)) == 2


async def lists_models(session: Any) -> None:
    """`/openai/verify` and the list of models, of which each has a name."""
    async with session.get(f"{BASE}/models", headers=headers_of(KEY)) as reply:
        assert reply.status == 200
        found = await reply.json()
    assert "error" not in found
    names = {model.get("id") or model.get("name") for model in found["data"]}
    assert names >= {"scenes", "sketcher"}
    async with session.get(f"{BASE}/models", headers=headers_of("cm_nobody_0")) as reply:
        assert reply.status == 401
        assert isinstance(await reply.json(content_type=None), dict)


async def describes(session: Any, picture: Path) -> None:
    """A chat with a picture, as a stream of lines."""
    data = base64.b64encode(picture.read_bytes()).decode()
    content = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ]
    body = {
        "stream": True,
        "model": "scenes",
        "messages": [{"role": "user", "content": content}],
        "stream_options": {"include_usage": True},
    }
    said = ""
    url = f"{BASE}/chat/completions"
    async with session.post(url, data=json.dumps(body), headers=headers_of(KEY)) as reply:
        assert "text/event-stream" in reply.headers["content-type"]
        async for line in reply.content:
            text = line.decode().strip().removeprefix("data:").strip()
            if text.startswith("{"):
                for choice in json.loads(text)["choices"]:
                    said += choice["delta"].get("content") or ""
    assert "circle" in said, said


async def is_refused(status: int, **fields: Any) -> None:
    async with aiohttp.ClientSession() as session:
        try:
            await generations(session, **{"model": "sketcher", "prompt": "a fox", **fields})
        except aiohttp.ClientResponseError as e:
            found = e.status
        else:
            found = 200
    assert found == status, (found, fields)


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        await lists_models(session)
        await draws(session)
        await describes(session, Path(sys.argv[1]))
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await generations(session, "sketcher", "webui left", params={"steps": 200})
    await is_refused(400, params={"stpes": 1})
    await is_refused(404, model="sktecher")
    await is_refused(429, model="away", base=f"{FULL}/v1")
    await is_refused(401, key="cm_nobody_0")


asyncio.run(main())
