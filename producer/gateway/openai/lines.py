"""Translation of batch-file lines from and to the format of OpenAI's API."""

import base64
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from crossmodal.errors import BlobNotFound, InvalidParams, is_callers_fault
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import ImageRef
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.txt2img import TXT2IMG
from producer.client import Client
from producer.gateway.body import built
from producer.gateway.intake import refused
from producer.gateway.openai import chat, images
from producer.gateway.openai.errors import body_of
from producer.gateway.openai.models import model_named, schema_of
from producer.gateway.problems import fault_of
from producer.gateway.responses import Urls
from producer.gateway.services import Services

Line = dict[str, Any]
KINDS = {"/v1/images/generations": TXT2IMG, "/v1/chat/completions": IMG2TXT}
"""The urls of translated lines, and the kinds of their jobs."""


def translator(services: Services) -> Callable[[Line], Line]:
    """Return `ours_or_refused` for the current models, read (blocking) at the first line."""
    known = functools.cache(services.sync.models)
    return lambda line: ours_or_refused(line, known())


def ours_or_refused(line: Line, known: KnownModels) -> Line:
    """Translate a line by `ours`; an invalid one becomes a refused line of its kind."""
    try:
        return ours(line, known)
    except InvalidParams as e:
        return refused(line | {"url": f"/v1/{KINDS[line['url']].name}"}, e)


def ours(line: Line, known: KnownModels) -> Line:
    """Translate a line of OpenAI's API to our format; return any other line unchanged.

    Raises `InvalidParams` or `ModelNotFound`.
    """
    url = line.get("url")
    kind = KINDS.get(url) if isinstance(url, str) else None
    if kind is None:
        return line
    body = line.get("body")
    if not isinstance(body, dict):
        raise InvalidParams("body is not a JSON object with the fields of a request")
    if body.get("stream"):
        raise InvalidParams("stream: a line of a file is not streamed", "stream")
    if kind is TXT2IMG:
        fields = _picture(built(images.ImagesRequest, body), known)
    else:
        fields = _caption(built(chat.ChatRequest, body), known)
    return line | {"url": f"/v1/{kind.name}", "body": fields}


def _picture(wanted: images.ImagesRequest, known: KnownModels) -> dict[str, Any]:
    model = model_named(wanted.model, TXT2IMG, known)
    fields, _ = images.translated(wanted, schema_of(model, TXT2IMG, known))
    return fields if model is None else fields | {"model": model}


def _caption(wanted: chat.ChatRequest, known: KnownModels) -> dict[str, Any]:
    model = model_named(wanted.model, IMG2TXT, known)
    fields = chat.translated(wanted, schema_of(model, IMG2TXT, known))
    return fields if model is None else fields | {"model": model}


def wants_urls(lines: Iterable[bytes]) -> frozenset[str]:
    """Return the `custom_id`s of lines that request URLs of their pictures, not bytes."""
    found = set()
    for text in lines:
        if b'"response_format"' in text:
            line = _parsed(text)
            body = line.get("body")
            if isinstance(body, dict) and body.get("response_format") == "url":
                found.add(str(line.get("custom_id")))
    return frozenset(found)


def theirs(
    text: bytes, client: Client, urls: Urls, as_urls: frozenset[str], created: int, *, failed: bool
) -> Iterator[bytes]:
    """Yield an output line in OpenAI's format, if its outcome matches `failed`."""
    line = json.loads(text)
    if (line["error"] is not None) is not failed:
        return
    response: Line = {"request_id": line["id"]}
    if failed:
        code, message = line["error"]["code"], line["error"]["message"]
        kind = "invalid_request_error" if is_callers_fault(code) else "server_error"
        error = {"code": code, "message": message, "type": kind, "param": None}
        response |= {
            "status_code": 400 if is_callers_fault(code) else 500,
            "body": {"error": error},
        }
    else:
        made, is_url = line["response"]["body"], line["custom_id"] in as_urls
        try:
            body = _body(line["id"], made, client, urls if is_url else None)
            response |= {"status_code": 200, "body": {"created": created, **body}}
        except BlobNotFound as e:  # deleted; other lines are not affected
            response |= {"status_code": 404, "body": {"error": body_of(fault_of(e)).model_dump()}}
    yield json.dumps(line | {"response": response}).encode() + b"\n"


def _body(name: str, made: Line, client: Client, urls: Urls | None) -> Line:
    """Return the response body of a line; with `urls`, its pictures are given by URL."""
    if captions := made.get("captions"):
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": caption["text"]},
                "finish_reason": "stop",
            }
            for i, caption in enumerate(captions)
        ]
        return {"id": f"chatcmpl-{name}", "object": "chat.completion", "choices": choices}
    refs = [ImageRef.model_validate(image) for image in made.get("images", ())]
    data = [
        {"url": urls.blob(ref.key)}
        if urls is not None
        else {"b64_json": base64.b64encode(client.read(ref)).decode()}
        for ref in refs
    ]
    return {"data": data, "seed": made.get("seed"), "warnings": made.get("warnings", [])}


def _parsed(text: bytes) -> Line:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # an unparsable line has failed
        return {}
    return line if isinstance(line, dict) else {}
