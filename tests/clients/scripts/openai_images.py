"""The official `openai` client: draws, follows, is refused, and leaves."""

import base64
import os
import struct
from typing import Any

import httpx2
from openai import (
    APIError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from refusals import refusal

PNG = b"\x89PNG\r\n\x1a\n"
KEY = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
client = OpenAI()


def size_of(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(PNG)
    return struct.unpack(">II", picture[16:24])


def refused(kind: type[APIError], **fields: object) -> Any:
    return refusal(kind, lambda: client.images.generate(**{"prompt": "a red circle", **fields}))


# As its own examples have it, with a name that is built in.
drawn = client.images.generate(model="gpt-image-1", prompt="a large red circle", size="1024x1024")
assert size_of(base64.b64decode(drawn.data[0].b64_json))[0] == 128
assert drawn.size == "128x128"
assert drawn.output_format == "png"
assert drawn.warnings == ["size: the model draws in one size only"]

# Another model's own params, several pictures, another format, and URLs that the same key may read.
given = {"seed": 7, "steps": 1, "negative_prompt": "a dog"}
drawn = client.images.generate(
    model="sketcher",
    prompt="a fox",
    n=2,
    size="64x32",
    output_format="webp",
    output_compression=80,
    response_format="url",
    extra_body=given,
)
assert (len(drawn.data), drawn.seed, drawn.model) == (2, 7, "sketcher")
for data in drawn.data:
    reply = httpx2.get(data.url, headers=KEY)
    assert reply.content[8:12] == b"WEBP"

# Who names a DALL·E expects a URL unasked; who does not, the picture.
[data] = client.images.generate(model="dall-e-3", prompt="a red circle").data
assert data.url.startswith("http")
assert size_of(base64.b64decode(data.b64_json)) == (128, 128)

# A stream with what is drawn so far.
events = list(
    client.images.generate(
        model="sketcher", prompt="a fox", stream=True, partial_images=2, extra_body={"steps": 14}
    )
)
kinds = [event.type for event in events]
partial, completed = "image_generation.partial_image", "image_generation.completed"
assert kinds == [partial, partial, completed], kinds
assert [event.partial_image_index for event in events[:2]] == [0, 1]
assert base64.b64decode(events[0].b64_json).startswith(b"\xff\xd8")
assert size_of(base64.b64decode(events[-1].b64_json)) == (64, 64)
assert events[-1].usage.total_tokens == 0
[only] = client.images.generate(
    model="dall-e-3", prompt="a red circle", stream=True, size="512x512"
)
assert only.type == completed
assert only.model_extra["warnings"] == ["size: the model draws in one size only"]

# Models.
listed = {model.id: model for model in client.models.list()}
assert listed.keys() >= {"scenes", "sketcher"}
assert client.models.retrieve("sketcher").owned_by == listed["sketcher"].owned_by

# What is refused.
error = refused(BadRequestError, model="sketcher", extra_body={"stpes": 2})
assert (error.code, error.param) == ("invalid_params", "stpes"), error.body
assert "did you mean 'steps'" in error.message
assert refused(BadRequestError, model="sketcher", extra_body={"steps": 9_999}).param == "steps"
assert refused(BadRequestError, model="sketcher", size="63x63").param == "size"
assert refused(BadRequestError, size="large").param == "size"
assert refused(BadRequestError, n=99).param == "n"
assert refused(BadRequestError, prompt="").code == "invalid_prompt"
assert refused(BadRequestError, model="scenes", prompt="zorg frob").code == "unknown_words"
error = refused(NotFoundError, model="sktecher")
assert (error.code, error.param) == ("model_not_found", "model")
error = refusal(NotFoundError, lambda: client.models.retrieve("sktecher"))
assert "sktecher" in error.message
stranger = client.with_options(api_key="cm_nobody_0", max_retries=0)
error = refusal(AuthenticationError, lambda: stranger.images.generate(prompt="a red circle"))
assert error.code == "unauthorized"
full = client.with_options(base_url=f"{os.environ['FULL_URL']}/v1", max_retries=0)
error = refusal(RateLimitError, lambda: full.images.generate(model="away", prompt="a fox"))
assert error.code == "queue_full"
assert int(error.response.headers["retry-after"]) >= 1
error = refusal(
    InternalServerError, lambda: client.images.edit(image=("a.png", PNG), prompt="a red circle")
)
assert (error.status_code, error.code) == (501, "not_supported")

# Who does not wait for long enough has the job canceled.
hasty = client.with_options(timeout=1.5, max_retries=0)
refusal(
    APITimeoutError,
    lambda: hasty.images.generate(model="sketcher", prompt="left", extra_body={"steps": 100}),
)
