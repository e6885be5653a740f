"""The official `openai` client asks what is in a picture: openai_chat.py PICTURE"""

import base64
import sys
from pathlib import Path

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI()
data = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
question = {"type": "text", "text": "What is in this picture?"}
messages = [{"role": "user", "content": [question, picture]}]

found = client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=300)
caption = found.choices[0].message.content
assert "circle" in caption, caption
assert (found.model, found.choices[0].finish_reason) == ("scenes", "stop")

found = client.chat.completions.create(model="scenes", messages=messages, n=2, temperature=0.2)
assert [choice.index for choice in found.choices] == [0, 1]
assert found.choices[0].message.content == caption

chunks = list(
    client.chat.completions.create(
        model="scenes", messages=messages, stream=True, stream_options={"include_usage": True}
    )
)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == caption
assert chunks[-2].choices[0].finish_reason == "stop"
assert chunks[-1].usage.total_tokens == 0

answer = {"role": "assistant", "content": "A circle."}
broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
WRONG = [
    ({"messages": [{"role": "user", "content": "hello"}]}, BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": [picture, picture]}]}, BadRequestError, "messages"),
    ({"messages": [*messages, answer, *messages]}, BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": [broken]}]}, BadRequestError, None),
    ({"model": "sceens"}, NotFoundError, "model"),
    ({"extra_body": {"beam_wdith": 2}}, BadRequestError, "beam_wdith"),
    ({"n": 99}, BadRequestError, "n"),
]
for fields, kind, param in WRONG:
    try:
        client.chat.completions.create(**{"model": "scenes", "messages": messages, **fields})
    except kind as e:
        found = e.param
    else:
        raise AssertionError(fields)
    assert found == param, (fields, found)
