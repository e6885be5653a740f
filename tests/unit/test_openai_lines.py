"""Lines of OpenAI's batch files, as our own, and results as theirs."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import InvalidParams, ModelNotFound
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.record import ItemResult, ModelInfo
from crossmodal.settings import Settings
from producer import Client
from producer.batches.jsonl import BatchFile
from producer.gateway.intake import check_lines
from producer.gateway.openai.files import page
from producer.gateway.openai.lines import ours, ours_or_refused, theirs, wants_urls
from producer.gateway.responses import Urls

KNOWN = KnownModels(
    [
        ModelInfo.model_validate(
            {
                "name": "turbo",
                "version": "1",
                "format": "code",
                "kinds": {"txt2img": {}, "img2txt": {}},
                "aliases": ("fast",),
            }
        )
    ]
)
PICTURES, CHAT = "/v1/images/generations", "/v1/chat/completions"
URLS = Urls("http://here")
PNG = b"\x89PNG"


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


def test_a_request_for_pictures_is_a_line_of_ours() -> None:
    found = ours(line(PICTURES, model="fast", prompt="a fox", n=2, steps=4), KNOWN)
    assert found == {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/txt2img",
        "body": {"prompt": "a fox", "count": 2, "steps": 4, "model": "turbo"},
    }


def test_a_name_that_is_built_in_is_the_default_model() -> None:
    assert ours(line(PICTURES, model="gpt-image-1", prompt="a fox"), KNOWN)["body"] == {
        "prompt": "a fox"
    }


def test_a_chat_is_a_line_of_ours() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    messages = [{"role": "user", "content": [picture]}]
    found = ours(line(CHAT, model="turbo", messages=messages), KNOWN)
    assert (found["url"], found["body"]) == (
        "/v1/img2txt",
        {"image": {"data": "data:image/png;base64,aGk="}, "model": "turbo"},
    )


@pytest.mark.parametrize("url", ["/v1/txt2img", "/v1/embeddings", 7, None])
def test_other_lines_are_left_as_they_are(url: Any) -> None:
    assert ours(line(url, prompt="a"), KNOWN) == line(url, prompt="a")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidParams, match="stream"):
        ours(line(PICTURES, prompt="a", stream=True), KNOWN)
    with pytest.raises(InvalidParams, match="JSON object"):
        ours({"url": PICTURES, "body": [1]}, KNOWN)
    with pytest.raises(ModelNotFound, match="turbo"):
        ours(line(PICTURES, prompt="a", model="trubo"), KNOWN)


def test_a_line_that_is_refused_is_still_of_its_kind() -> None:
    found = ours_or_refused(line(CHAT, messages=[]), KNOWN)
    assert (found["custom_id"], found["url"]) == ("a", "/v1/img2txt")
    assert found["refused"]["code"] == "invalid_params"
    assert found["refused"]["message"].startswith("messages: ")


def test_a_file_of_wrong_lines_alone_is_a_file(tmp_path: Path) -> None:
    source, checked = tmp_path / "given.jsonl", tmp_path / "checked.jsonl"
    source.write_text(json.dumps(line(PICTURES, prompt="a", n=0)))
    list(check_lines(source, checked, lambda _: True, "", lambda one: ours_or_refused(one, KNOWN)))
    file = BatchFile(checked, None, "b", 1, lambda: KNOWN, is_ours=False)
    [failed] = file.items()
    assert (file.task, file.total) == ("txt2img", 1)
    assert isinstance(failed, ItemResult)
    assert failed.failure is not None
    assert failed.failure.message.startswith("n: ")


def test_a_page_begins_after_one_of_the_list() -> None:
    first, gone, *ids = sorted(new_job_id() for _ in range(5))
    ids = [*ids[::-1], first]  # as they are listed
    assert page(ids, "", 3) == (ids[:3], True)
    assert page(ids, ids[1], 2) == (ids[2:], False)
    assert page(ids, first, 3) == ([], False)
    assert page(ids, gone, 3) == ([first], False)
    assert page(ids[::-1], gone, 2, ascending=True) == (ids[-2:0:-1], True)
    with pytest.raises(InvalidParams, match="'e' is not an id: give the last_id") as refused:
        page(ids, "e", 3)
    assert refused.value.field == "after"


def test_who_wants_urls_is_named() -> None:
    lines = [
        json.dumps({"custom_id": "url", "body": {"response_format": "url"}}).encode(),
        json.dumps({"custom_id": "data", "body": {"response_format": "b64_json"}}).encode(),
        json.dumps({"custom_id": "none", "body": {"prompt": '"response_format"'}}).encode(),
        b'"response_format"',
        b'{"response_format": broken',
    ]
    assert wants_urls(lines) == {"url"}


def written(response: Any, error: Any = None) -> bytes:
    """A line of a batch's output, as the background process writes it."""
    return json.dumps({"id": "r", "custom_id": "a", "response": response, "error": error}).encode()


def shown(text: bytes, client: Client, *urls: str, failed: bool = False) -> list[Any]:
    lines = theirs(text, client, URLS, frozenset(urls), 7, failed=failed)
    return [json.loads(line) for line in lines]


def drawn(client: Client) -> tuple[str, bytes]:
    """The key of a picture in the store, and the line of who has drawn it."""
    ref = client.storage.put("outputs/a/0.png", PNG, "image/png")
    image = {**ref.model_dump(), "width": 1, "height": 1}
    return ref.key, written(
        {"status_code": 200, "body": {"images": [image], "seed": 7, "warnings": ["it is short"]}}
    )


def test_pictures_are_put_into_their_line(client: Client) -> None:
    _, text = drawn(client)
    [found] = shown(text, client)
    assert found["response"] == {
        "request_id": "r",
        "status_code": 200,
        "body": {
            "created": 7,
            "seed": 7,
            "data": [{"b64_json": base64.b64encode(PNG).decode()}],
            "warnings": ["it is short"],
        },
    }
    assert (found["custom_id"], found["error"]) == ("a", None)


def test_a_picture_that_was_deleted_is_an_error_of_its_line(client: Client) -> None:
    key, text = drawn(client)
    client.storage.delete(key)
    [found] = shown(text, client)
    assert found["response"]["status_code"] == 404
    assert found["response"]["body"]["error"]["code"] == "blob_not_found"


def test_who_has_asked_for_urls_has_those(client: Client) -> None:
    key, text = drawn(client)
    [found] = shown(text, client, "a")
    assert found["response"]["body"]["data"] == [{"url": f"http://here/v1/blobs/{key}"}]


def test_captions_are_choices(client: Client) -> None:
    body = {"captions": [{"text": "a fox", "log_probability": -1.0}], "images": []}
    [found] = shown(written({"status_code": 200, "body": body}), client)
    [choice] = found["response"]["body"]["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a fox"}


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("unknown_words", 400, "invalid_request_error"), ("out_of_memory", 500, "server_error")],
)
def test_a_failure_has_the_status_that_it_would_have_had_alone(
    client: Client, code: str, status: int, kind: str
) -> None:
    text = written(None, {"code": code, "message": "no"})
    [found] = shown(text, client, failed=True)
    assert found["response"]["status_code"] == status
    assert found["response"]["body"]["error"] == {
        "code": code,
        "message": "no",
        "type": kind,
        "param": None,
    }


def test_each_of_the_two_files_has_its_own_lines(client: Client) -> None:
    assert shown(drawn(client)[1], client, failed=True) == []
    assert shown(written(None, {"code": "out_of_memory", "message": "no"}), client) == []
