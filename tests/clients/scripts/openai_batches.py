"""The official `openai` client sends a file of requests, and reads what became of them."""

import base64
import io
import json
import time

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI()
URL = "/v1/images/generations"
ENDED = ("completed", "failed", "cancelled")


def line(name: str, url: str = URL, **body: object) -> str:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})


def ended(batch_id: str) -> object:
    deadline = time.monotonic() + 120
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)  # between two polls
    return batch


lines = [
    line("one", model="gpt-image-1", prompt="a large red circle", size="1024x1024"),
    line("two", model="sketcher", prompt="a fox", size="64x32", n=2, steps=1, seed=7),
    line("url", model="sketcher", prompt="a fox", response_format="url"),
    line("wrong", model="sketcher", prompt="a fox", stpes=1),
    line("size", prompt="a fox", size="huge"),
    line("nobody", model="sktecher", prompt="a fox"),
    line("words", model="scenes", prompt="zorg frob"),
]
sent = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
assert sent.id.startswith("file-")
assert sent.filename == "requests.jsonl"
assert client.files.retrieve(sent.id).bytes == len("\n".join(lines))
assert client.files.content(sent.id).text.splitlines() == lines
assert sent.id in [file.id for file in client.files.list()]

batch = client.batches.create(
    input_file_id=sent.id, endpoint=URL, completion_window="24h", metadata={"for": "you"}
)
assert batch.id.startswith("batch_")
assert batch.metadata == {"for": "you"}
assert batch.id in [one.id for one in client.batches.list(limit=1)]
batch = ended(batch.id)
counts = batch.request_counts
assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 7, 3, 4), (
    batch
)

found = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
output = {one["custom_id"]: one["response"] for one in found}
assert output.keys() == {"one", "two", "url"}
assert {one["status_code"] for one in output.values()} == {200}
assert len(output["two"]["body"]["data"]) == 2
for data in (*output["one"]["body"]["data"], *output["two"]["body"]["data"]):
    assert base64.b64decode(data["b64_json"]).startswith(b"\x89PNG")
assert output["url"]["body"]["data"][0]["url"].startswith("http")

found = [json.loads(text) for text in client.files.content(batch.error_file_id).text.splitlines()]
errors = {one["custom_id"]: one["response"]["body"]["error"]["code"] for one in found}
assert errors == {
    "wrong": "invalid_params",
    "size": "invalid_params",
    "nobody": "model_not_found",
    "words": "unknown_words",
}, errors
assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"

slow = "\n".join(line(str(i), model="sketcher", prompt="a fox", steps=100) for i in range(50))
sent = client.files.create(file=("slow.jsonl", io.BytesIO(slow.encode())), purpose="batch")
batch = client.batches.create(input_file_id=sent.id, endpoint=URL, completion_window="24h")
assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
assert ended(batch.id).status == "cancelled"
assert client.files.delete(sent.id).deleted

for call, kind in [
    (lambda: client.files.retrieve(sent.id), NotFoundError),
    (lambda: client.batches.retrieve("batch_nothing"), NotFoundError),
    (
        lambda: client.batches.create(input_file_id=sent.id, endpoint=URL, completion_window="24h"),
        NotFoundError,
    ),
    (lambda: client.files.create(file=("a.txt", b"hello"), purpose="vision"), BadRequestError),
    (
        lambda: client.batches.create(
            input_file_id=sent.id, endpoint="/v1/responses", completion_window="24h"
        ),
        BadRequestError,
    ),
]:
    try:
        call()
    except kind:
        continue
    raise AssertionError(kind)
