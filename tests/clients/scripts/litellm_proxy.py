"""The official `openai` client speaks to LiteLLM's proxy: litellm_proxy.py PICTURE"""

import base64
import sys
from pathlib import Path

from openai import (
    APIError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from refusals import refusal

client = OpenAI(max_retries=0)

# Draws.
for fields in (
    {"model": "gpt-image-1", "prompt": "a large red circle", "size": "1024x1024"},
    {"model": "sketcher", "prompt": "a fox", "n": 2, "extra_body": {"steps": 1, "seed": 7}},
):
    drawn = client.images.generate(**fields)
    assert len(drawn.data) == fields.get("n", 1)
    assert base64.b64decode(drawn.data[0].b64_json).startswith(b"\x89PNG")

# Describes.
data = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
found = client.chat.completions.create(model="scenes", messages=messages)
caption = found.choices[0].message.content
assert "circle" in caption, caption
chunks = client.chat.completions.create(model="scenes", messages=messages, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == caption


# Each has its own kind of error, and the gateway's words.
def refused(kind: type[APIError], says: str, **fields: object) -> APIError:
    error = refusal(kind, lambda: client.images.generate(**{"prompt": "a fox", **fields}))
    assert says in error.message, error.message
    return error


error = refused(BadRequestError, "did you mean 'steps'", model="sketcher", extra_body={"stpes": 1})
assert error.param == "stpes"
refused(BadRequestError, "less than or equal to 200", model="sketcher", extra_body={"steps": 999})
refused(NotFoundError, "did you mean 'sketcher'", model="nobody")
refused(AuthenticationError, "API key", model="stranger")
call = client.chat.completions.create  # of pictures, the proxy waits to try again
error = refusal(RateLimitError, lambda: call(model="full", messages=messages))
assert "submit again in" in error.message
text = [{"role": "user", "content": "hello"}]
error = refusal(
    BadRequestError, lambda: client.chat.completions.create(model="scenes", messages=text)
)
assert "send one" in error.message

# What the proxy gives up is canceled.
try:
    client.images.generate(model="hasty", prompt="proxy left", extra_body={"steps": 200})
except APIError as e:
    print(type(e).__name__)
else:
    raise AssertionError("it was not given up")
