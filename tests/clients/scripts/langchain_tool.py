"""LangChain's tool that draws, and its chat model with a picture: langchain_tool.py PICTURE"""

import base64
import os
import sys
from pathlib import Path

import httpx
from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import OpenAIInvalidRequestError
from openai import (
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from refusals import refusal

KEY = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}


def tool(**fields: object) -> OpenAIDALLEImageGenerationTool:
    return OpenAIDALLEImageGenerationTool(api_wrapper=DallEAPIWrapper(**fields))


# Draws: what it answers are URLs, one a line.
urls = tool(model="dall-e-3", n=2).invoke("a large red circle").splitlines()
assert len(urls) == 2
for url in urls:
    assert httpx.get(url, headers=KEY).content.startswith(b"\x89PNG")

# Describes, and in chunks.
data = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
chat = ChatOpenAI(model="scenes", temperature=0, max_retries=0)
caption = chat.invoke(messages).content
assert "circle" in caption, caption
assert "".join(chunk.content for chunk in chat.stream(messages)) == caption

# Is refused, and leaves.
full = f"{os.environ['FULL_URL']}/v1"
for kind, code, fields in (
    (BadRequestError, "invalid_params", {"size": "huge"}),
    (BadRequestError, "invalid_params", {"n": 99}),
    (NotFoundError, "model_not_found", {"model": "sktecher"}),
    (RateLimitError, "queue_full", {"model": "away", "base_url": full, "max_retries": 0}),
    (AuthenticationError, "unauthorized", {"api_key": "cm_nobody_0"}),
):
    error = refusal(kind, lambda fields=fields: tool(**fields).invoke("a fox"))
    assert error.code == code, error.body
history = [*messages, {"role": "assistant", "content": "A circle."}, *messages]
assert "history" in refusal(OpenAIInvalidRequestError, lambda: chat.invoke(history)).message
hasty = tool(model="away", timeout=1.5, max_retries=0)
refusal(APITimeoutError, lambda: hasty.invoke("chain left"))
