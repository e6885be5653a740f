"""What a request may say, and what is said of one that is wrong; no worker is here."""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import pytest

from crossmodal.settings import Settings
from producer import Client
from producer.gateway.app import make_app
from tests.gateway import calling

DRAW = {"task": "txt2img", "prompt": "a red circle"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(PNG).decode()
JSON = {"Content-Type": "application/json"}
NOWHERE = "01a20026-8c96-7bba-8e3c-5db14a5fec48"

Http = httpx2.AsyncClient
T = TypeVar("T")


def asked(
    settings: Settings, ask: Callable[[Http], Awaitable[T]], *, needs_keys: bool = False
) -> T:
    """What a gateway in this process answers."""

    async def scenario() -> T:
        async with calling(make_app(settings, needs_keys=needs_keys)) as http:
            return await ask(http)

    return asyncio.run(scenario())


def refused(reply: httpx2.Response, code: str, says: str) -> None:
    assert reply.status_code == 422, reply.text
    assert (reply.json()["code"], reply.json()["detail"]) == (code, says)


WRONG: list[tuple[Any, str]] = [
    (DRAW | {"sede": 7}, "body: unknown field 'sede': did you mean 'seed'?"),
    (
        DRAW | {"webhook": "https://a.example"},
        "body: unknown field 'webhook': did you mean 'webhook_url'?",
    ),
    (
        DRAW | {"Count": 2, "temprature": 1},
        "body: unknown field 'Count': did you mean 'count'?; unknown field 'temprature': "
        "did you mean 'temperature'?",
    ),
    (
        DRAW | {"zorg": 1},
        "body: unknown field 'zorg': known: prompt, count, seed, temperature, metadata, model, "
        "format, quality, embed_metadata, task, expires_in_s, priority, keep_s, "
        "webhook_url, webhook_events",
    ),
    (
        DRAW | {"format": "webp", "quality": 101},
        "invalid params: quality: Input should be less than or equal to 100 (got 101)",
    ),
    (
        DRAW | {"quality": 80},
        "invalid params: quality: png has no quality: set `format` to webp or jpeg (got 80)",
    ),
    (
        DRAW | {"format": "gif"},
        "invalid params: format: Input should be 'png', 'webp' or 'jpeg' (got 'gif')",
    ),
    ({"tsak": "txt2img", "prompt": "a"}, "body: unknown field 'tsak': did you mean 'task'?"),
    (
        {"prompt": "a", "zorg": 1},
        "body: unknown field 'zorg': known: task, metadata, expires_in_s, priority, keep_s, "
        "webhook_url, webhook_events, prompt, count, seed, temperature, model, format, quality, "
        "embed_metadata, image, beam_width, max_words",
    ),
    ({"prompt": "a"}, "task: missing: give txt2img or img2txt"),
    (
        {"task": "text2img", "prompt": "a"},
        "task: 'text2img' is not txt2img or img2txt: did you mean 'txt2img'?",
    ),
    (
        {"task": "img2txt", "image": {"dta": TEXT}},
        "image: unknown field 'dta': did you mean 'data'?",
    ),
    (
        {"task": "img2txt", "image": {"key": "inputs/a", "url": "https://a.example"}},
        "image: give one of key, data, url",
    ),
    (
        {"task": "img2txt", "image": {"key": "inputs/a", "data": TEXT}},
        "image: give one of key, data, url",
    ),
    (DRAW | {"webhook_events": ["job.failed"]}, "webhook_events: needs a webhook_url"),
    ({"task": "img2txt", "image": {}}, "image: give an object with a key, with data or with a url"),
    ({"task": "img2txt", "image": {"key": 5}}, "image.key: Input should be a valid string"),
    ([DRAW], "the body is not a JSON object with the fields of a job"),
]


def test_fields_that_are_not_known_are_named_with_the_nearest_known_one(settings: Settings) -> None:
    async def ask(http: Http) -> None:
        for body, says in WRONG:
            refused(await http.post("/v1/jobs", json=body), "invalid_params", says)
        reply = await http.post("/v1/uploads", json={"sha": "a" * 64})
        near = "body: unknown field 'sha': did you mean 'sha256'?"
        refused(reply, "invalid_params", near)

    asked(settings, ask)


def test_a_form_has_no_other_fields_either(settings: Settings) -> None:
    form = {"task": "img2txt", "cuont": "2"}

    async def ask(http: Http) -> None:
        reply = await http.post("/v1/jobs", data=form, files={"file": PNG})
        refused(reply, "invalid_params", "body: unknown field 'cuont': did you mean 'count'?")
        reply = await http.post("/v1/jobs", data={"task": "img2txt"}, files={"picture": PNG})
        refused(reply, "invalid_params", "picture: a form has its picture in the field 'file'")
        reply = await http.post("/v1/jobs", data=DRAW, files={"file": PNG})
        refused(reply, "invalid_params", "file: only img2txt takes a picture")
        twice = {"task": "img2txt", "image": '{"key": "inputs/a"}'}
        reply = await http.post("/v1/jobs", data=twice, files={"file": PNG})
        both = "image: the form has its picture in the field 'file': give only one of them"
        refused(reply, "invalid_params", both)
        reply = await http.post(
            "/v1/jobs", data={"task": "img2txt", "metadata": "[1]"}, files={"file": PNG}
        )
        assert reply.status_code == 202, reply.text

    asked(settings, ask)


def test_a_number_that_is_too_long_is_said_to_be(settings: Settings) -> None:
    long = "7" * 5_000

    async def ask(http: Http) -> None:
        body = f'{{"task": "txt2img", "prompt": "a", "seed": {long}}}'
        reply = await http.post("/v1/jobs", content=body, headers=JSON)
        said = (reply.status_code, reply.json()["detail"])
        assert said == (400, "the body has a number with too many digits")
        form = {"task": "img2txt", "count": long}
        reply = await http.post("/v1/jobs", data=form, files={"file": PNG})
        assert reply.json()["detail"].endswith("has a number with too many digits")

    asked(settings, ask)


def test_what_is_wrong_with_metadata_is_said_in_our_words(settings: Settings) -> None:
    wanted = DRAW | {"metadata": "x" * 3_000}
    reply = asked(settings, lambda http: http.post("/v1/jobs", json=wanted))
    says = "invalid params: metadata: is 3002 bytes of JSON, 2048 are allowed (got 'x"
    assert reply.json()["detail"].startswith(says)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/v1/jobs?stat=failed", "unknown field 'stat': did you mean 'state'?"),
        ("/v1/jobs?limit=2&page=2", "unknown field 'page': known: state, task, cursor, limit"),
        ("/v1/dead-letters?limits=2", "unknown field 'limits': did you mean 'limit'?"),
        ("/v1/webhooks/deliveries?jobs=a", "unknown field 'jobs': did you mean 'job'?"),
        ("/v1/blobs/inputs/a?redirects=no", "unknown field 'redirects': did you mean 'redirect'?"),
    ],
)
def test_a_listing_takes_no_other_parameters(settings: Settings, path: str, near: str) -> None:
    refused(asked(settings, lambda http: http.get(path)), "invalid_params", f"query: {near}")


def test_no_route_takes_parameters_that_it_does_not_declare(settings: Settings) -> None:
    app = make_app(settings, needs_keys=False)
    routes = [
        (method, path.replace("{job_id}", NOWHERE).replace("{batch_id}", NOWHERE))
        for path, methods in app.openapi()["paths"].items()
        if path.startswith("/v1/")
        for method in methods
    ]

    async def ask(http: Http) -> None:
        for method, path in routes:
            reply = await http.request(method, f"{path}?zorg=1")
            body = reply.json()
            status, said = reply.status_code, body.get("detail") or body["error"]["message"]
            assert status == (400 if "error" in body else 422), (method, path, reply.text)
            assert said.startswith("query: unknown field 'zorg': known: ")

    assert len(routes) > 15
    asked(settings, ask)


def test_parameters_are_looked_at_when_it_is_known_who_calls(settings: Settings) -> None:
    reply = asked(settings, lambda http: http.get("/v1/queues?x=1"), needs_keys=True)
    assert reply.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "x" * 161},
        {"traceparent": "x" * 101},
        {"Prefer": "x" * 201},
    ],
    ids=["empty", "long", "trace", "prefer"],
)
def test_a_header_that_cannot_be_read_is_a_bad_request(
    settings: Settings, headers: dict[str, str]
) -> None:
    reply = asked(settings, lambda http: http.post("/v1/jobs", json=DRAW, headers=headers))
    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")
    assert next(iter(headers)).lower() in reply.json()["detail"].lower()


def test_an_empty_batch_is_said_to_be_empty(settings: Settings) -> None:
    kind = {"Content-Type": "application/jsonl"}
    reply = asked(settings, lambda http: http.post("/v1/batches", content=b"", headers=kind))
    refused(reply, "invalid_params", "the file is empty: write one request per line")


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(PNG).decode(),
        f"data:image/png;base64,{TEXT}",
        f"{TEXT[:40]}\n{TEXT[40:]}\n",
    ],
    ids=["plain", "unpadded", "url-safe", "data url", "in lines"],
)
def test_a_picture_is_read_however_its_base64_is_written(settings: Settings, text: str) -> None:
    async def ask(http: Http) -> bytes:
        wanted = {"task": "img2txt", "image": {"data": text}}
        reply = await http.post("/v1/jobs", json=wanted)
        assert reply.status_code == 202, reply.text
        return (await http.get(reply.json()["input_url"])).content

    assert asked(settings, ask) == PNG


@pytest.mark.parametrize("text", ["photo.jpg", "!", "https://a.example/a.png", 5, None])
def test_what_is_no_base64_is_said_to_be_none(settings: Settings, text: Any) -> None:
    wanted = {"task": "img2txt", "image": {"data": text}}
    reply = asked(settings, lambda http: http.post("/v1/jobs", json=wanted))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_image")
    assert reply.json()["detail"].startswith("image.data is not base64")


PRIVATE = [
    "http://127.0.0.1:9/hook",
    "http://10.0.0.5/hook",
    "https://192.168.1.1/",
    "http://[::1]/",
    "http://localhost:9/hook",
    "http://LOCALHOST/hook",
    "http://app.localhost/",
    "http://receiver:8000/hook",
    "http://nas.local/",
    "https://db.prod.internal/hook",
]
NEVER = ["http://169.254.169.254/latest", "http://0.0.0.0/hook", "http://[::ffff:127.0.0.1]/"]


def test_a_webhook_to_a_private_address_is_refused_at_once_and_names_the_setting(
    settings: Settings,
) -> None:
    async def ask(http: Http) -> None:
        for url in [*PRIVATE, *NEVER]:
            reply = await http.post("/v1/jobs", json=DRAW | {"webhook_url": url})
            assert (reply.status_code, reply.json()["code"]) == (422, "url_refused"), url
            detail = reply.json()["detail"]
            assert detail.startswith("webhook_url: "), detail
            assert ("CROSSMODAL_ALLOW_PRIVATE_URLS" in detail) == (url in PRIVATE), detail

    asked(settings, ask)
    with Client(settings) as client:
        assert client.jobs().jobs == []


def test_where_private_addresses_are_allowed_such_a_webhook_is_taken(settings: Settings) -> None:
    async def ask(http: Http) -> None:
        for url in PRIVATE:
            reply = await http.post("/v1/jobs", json=DRAW | {"webhook_url": url})
            assert reply.status_code == 202, (url, reply.text)
        reply = await http.post("/v1/jobs", json=DRAW | {"webhook_url": NEVER[0]})
        assert reply.status_code == 422

    asked(settings.model_copy(update={"allow_private_urls": True}), ask)


def test_no_key_is_spoken_of_where_none_is_used(settings: Settings) -> None:
    async def ask(http: Http) -> list[str]:
        wanted = {"task": "img2txt", "image": {"key": "inputs/aa/aaaa"}}
        replies = [
            await http.get(f"/v1/jobs/{NOWHERE}"),
            await http.get(f"/v1/batches/{NOWHERE}"),
            await http.get("/v1/blobs/inputs/aa/aaaa"),
            await http.post("/v1/jobs", json=wanted),
            await http.post(f"/v1/dead-letters/{NOWHERE}/replay"),
        ]
        assert {reply.status_code for reply in replies} == {404}
        return [reply.json()["detail"] for reply in replies]

    assert not [detail for detail in asked(settings, ask) if "API key" in detail]

    with Client(settings) as client:
        _, token = client.keys.create("somebody")

    async def ask_with_key(http: Http) -> list[str]:
        http.headers["Authorization"] = f"Bearer {token}"
        return await ask(http)

    told = asked(settings, ask_with_key, needs_keys=True)
    assert all(detail.endswith("of this API key") for detail in told)


def test_a_line_that_names_a_blob_which_is_not_there_speaks_of_no_key(settings: Settings) -> None:
    line = {"url": "/v1/img2txt", "body": {"image": {"key": "nowhere/a"}}}
    kind = {"Content-Type": "application/jsonl"}
    app = make_app(settings, needs_keys=False)

    async def scenario() -> str:
        async with calling(app) as http:
            reply = await http.post("/v1/batches", content=json.dumps(line), headers=kind)
            return str(reply.json()["id"])

    batch_id = asyncio.run(scenario())
    with Client(settings) as client:
        kept = client.storage.stream(f"results/{batch_id}/input.jsonl", 0, 10_000)
        refused = json.loads(b"".join(kept))["refused"]
        assert refused["message"] == "there is no blob 'nowhere/a'"


def test_a_listing_says_of_each_job_that_waits_how_many_are_before_it(settings: Settings) -> None:
    async def ask(http: Http) -> list[int | None]:
        jobs = [(await http.post("/v1/jobs", json=DRAW)).json() for _ in range(4)]
        await http.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
        listed = (await http.get("/v1/jobs")).json()["data"]
        return [job["position"] for job in listed]

    assert asked(settings, ask) == [2, 1, 0, None]


def test_the_documentation_comes_from_here_alone(settings: Settings) -> None:
    async def ask(http: Http) -> None:
        page = await http.get("/docs")
        assert "script-src 'self';" in page.headers["content-security-policy"]
        links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(links) == 5
        for link in links:
            reply = await http.get(f"/{link}")
            assert (reply.status_code, bool(reply.content)) == (200, True), link

    asked(settings, ask, needs_keys=True)


def test_the_document_says_that_there_are_no_other_fields(settings: Settings) -> None:
    document = make_app(settings, needs_keys=False).openapi()
    schemas = document["components"]["schemas"]
    closed = ("ByKey", "ByData", "ByUrl", "UploadRequest")
    for_models = ("Txt2ImgRequest", "Img2TxtRequest")
    found = {name: schemas[name]["additionalProperties"] for name in (*closed, *for_models)}
    assert found == dict.fromkeys(closed, False) | dict.fromkeys(for_models, True)
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["additionalProperties"] is True
    listed = document["paths"]["/v1/jobs"]["get"]["parameters"]
    assert [p["name"] for p in listed if p["in"] == "query"] == ["state", "task", "cursor", "limit"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/hook",
        "https://me:hunter2@a.example/",
        "https://a.example:0/hook",
        "https://a..example/hook",
        "https://[::1",
        "https://a.example/\x07",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_with_the_name_of_its_field(
    settings: Settings, url: str
) -> None:
    allowed = settings.model_copy(update={"allow_image_urls": True})
    caption = {"task": "img2txt", "image": {"url": url}}

    async def ask(http: Http) -> None:
        for body, field in ((DRAW | {"webhook_url": url}, "webhook_url"), (caption, "image.url")):
            reply = await http.post("/v1/jobs", json=body)
            assert (reply.status_code, reply.json()["code"]) == (422, "url_refused"), reply.text
            assert reply.json()["detail"].startswith(f"{field}: the URL "), reply.text

    asked(allowed, ask)
