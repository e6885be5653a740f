"""What AUTOMATIC1111's web UI has one of, each API key has for itself; no worker is here."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest
from pydantic import Field

from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.models import Models
from crossmodal.jobs.names import preview_key
from crossmodal.jobs.record import Job, JobState, ModelInfo, PreviewRef, Progress, ServedKind
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from tests.gateway import in_thread
from tests.ledgers import Ledger
from tests.waiting import until

WAIT_S = 20
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()
NOTHING = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "current_image": None,
    "textinfo": None,
    "state": {
        "job": "",
        "job_count": 0,
        "job_no": 0,
        "job_timestamp": "0",
        "sampling_step": 0,
        "sampling_steps": 0,
    },
}


class InkParams(Txt2ImgParams):
    steps: int = Field(default=4, ge=1, le=50)
    guidance: float = Field(default=5.0, ge=0, le=20)


def told(name: str, *params: type[ItemParams], **known: Any) -> ModelInfo:
    kinds = {
        "img2txt" if one is Img2TxtParams else "txt2img": ServedKind(params=schema_of(one))
        for one in params
    }
    return ModelInfo(name=name, version="v1", format="code", kinds=kinds, **known)


MODELS = [
    told("scenes", Txt2ImgParams, Img2TxtParams, default_for=("txt2img", "img2txt")),
    told("ink", InkParams, aliases=("pen",)),
    told("blip", Img2TxtParams),
]


class Caller(httpx2.Client):
    """A client with a key of its own, which it sends as A1111's clients do."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(base_url=f"{url}/sdapi/v1", auth=("me", token), timeout=WAIT_S)
        self.token = token


@dataclass(frozen=True)
class World:
    """A gateway that asks for keys, and who plays the worker."""

    url: str
    client: Client
    ledger: Ledger

    def caller(self, **limits: Any) -> Caller:
        return Caller(self.url, self.client.keys.create("somebody", **limits)[1])

    def jobs(self, http: Caller) -> list[Job]:
        return self.client.jobs(http.token.split("_")[1]).jobs

    def job(self, http: Caller) -> Job:
        """The caller's only job, once it is there and attended."""
        until(lambda: http.get("/progress").json()["state"]["job_count"] == 1, WAIT_S)
        [job] = [job for job in self.jobs(http) if not job.state.is_terminal]
        return job

    def started(self, job: Job) -> Attempt:
        attempt = self.ledger.start(job.id, "cpu@here")
        assert isinstance(attempt, Attempt)
        return attempt


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with (
        Client(settings) as client,
        Ledger(settings) as ledger,
        in_thread(settings, needs_keys=True) as url,
    ):
        client.run(Models(settings).announce(MODELS))
        yield World(url, client, ledger)


@pytest.fixture
def http(world: World) -> Iterator[Caller]:
    with world.caller() as http:
        yield http


@contextmanager
def asking(http: Caller, path: str = "/txt2img", **fields: Any) -> Iterator[Any]:
    """A request that waits; what is left of it is interrupted at the end."""
    with ThreadPoolExecutor(1) as threads:
        wanted = {"prompt": "a fox"} | fields if path == "/txt2img" else fields
        reply: Future[httpx2.Response] = threads.submit(http.post, path, json=wanted)
        try:
            yield reply
        finally:
            until(lambda: is_over(http, reply), WAIT_S)


def is_over(http: Caller, reply: Future[httpx2.Response]) -> bool:
    http.post("/interrupt")
    return reply.done()


def refused(reply: httpx2.Response, status: int, code: str) -> str:
    """What is said of an error, which has A1111's shape."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body == {"error": code, "detail": body["detail"], "body": "", "errors": body["detail"]}
    return str(body["detail"])


def checkpoint(http: Caller) -> Any:
    return http.get("/options").json()["sd_model_checkpoint"]


def test_each_caller_chooses_its_own_model(world: World, http: Caller) -> None:
    assert checkpoint(http) == "scenes"
    shown = http.get("/options").json()
    reply = http.post("/options", json=shown | {"sd_model_checkpoint": "pen"})
    assert (reply.status_code, reply.json()) == (200, None)
    assert checkpoint(http) == "ink"
    with world.caller() as other:
        assert checkpoint(other) == "scenes"
    with asking(http, steps=3, cfg_scale=2):
        job = world.job(http)
        assert (job.params["model"], job.params["steps"], job.params["guidance"]) == ("ink", 3, 2)
    http.post("/options", json={"sd_model_checkpoint": None})
    assert checkpoint(http) == "scenes"


@pytest.mark.parametrize(("restores", "kept"), [(True, "scenes"), (False, "ink")])
def test_a_model_for_one_request_is_kept_if_that_is_asked_for(
    world: World, http: Caller, restores: bool, kept: str
) -> None:
    fields: dict[str, Any] = {
        "override_settings": {"sd_model_checkpoint": "ink"},
        "override_settings_restore_afterwards": restores,
    }
    with asking(http, **fields):
        assert world.job(http).params["model"] == "ink"
    assert checkpoint(http) == kept


def test_progress_is_of_the_callers_own_job(world: World, http: Caller) -> None:
    assert http.get("/progress").json() == NOTHING
    with asking(http), world.caller() as other:
        job = world.job(http)
        waiting = http.get("/progress").json()
        assert (waiting["progress"], waiting["textinfo"]) == (0.0, "a worker")
        assert waiting["state"]["job"] == job.id
        assert other.get("/progress").json() == NOTHING


def test_progress_shows_steps_and_what_is_drawn_so_far(world: World, http: Caller) -> None:
    with asking(http):
        attempt = world.started(world.job(http))
        step = Progress(step=3, of=4, left_s=2.5)
        assert not world.ledger.progress(attempt, step)
        shown = http.get("/progress", params={"skip_current_image": True}).json()
        assert (shown["progress"], shown["eta_relative"]) == (0.75, 2.5)
        assert (shown["state"]["sampling_step"], shown["state"]["sampling_steps"]) == (3, 4)
        assert not world.ledger.progress(attempt, step)  # nobody watches who skips the picture
        assert http.get("/progress").json()["current_image"] is None
        preview = PreviewRef(key=preview_key(attempt.job, 1), number=1)
        world.client.storage.put(preview.key, b"\xff\xd8 small", "image/jpeg")
        watched = world.ledger.progress(attempt, step.model_copy(update={"preview": preview}))
        assert watched
        shown = http.get("/progress").json()
        assert base64.b64decode(shown["current_image"]) == b"\xff\xd8 small"


def test_an_interrupt_ends_the_callers_own_jobs_of_here_alone(world: World, http: Caller) -> None:
    with world.caller() as other, asking(other), asking(http, seed=7) as reply:
        here, its = world.job(http), world.job(other)
        elsewhere = httpx2.post(
            f"{world.url}/v1/jobs",
            json={"task": "txt2img", "prompt": "a fox"},
            headers={"Authorization": f"Bearer {http.token}"},
        ).json()["id"]
        assert http.post("/interrupt").json() == {}
        answer = reply.result(WAIT_S)
        assert (answer.status_code, answer.json()["images"]) == (200, [])
        info = json.loads(answer.json()["info"])
        assert (info["job"], info["seed"], info["all_seeds"]) == (here.id, 7, [])
        assert info["warnings"] == ["interrupted: no picture was finished"]
        assert world.client.record(elsewhere).state is JobState.QUEUED
        assert world.client.record(its.id).state is JobState.QUEUED
        assert http.get("/progress").json() == NOTHING


def test_the_job_of_a_caller_who_leaves_is_canceled(world: World, http: Caller) -> None:
    connection = HTTPConnection(world.url.removeprefix("http://"), timeout=WAIT_S)
    headers = {"Authorization": f"Bearer {http.token}", "Content-Type": "application/json"}
    connection.request("POST", "/sdapi/v1/txt2img", json.dumps({"prompt": "a fox"}), headers)
    job = world.job(http)
    connection.close()
    until(lambda: world.client.record(job.id).state is JobState.CANCELED, WAIT_S)
    assert http.get("/progress").json() == NOTHING


@pytest.mark.parametrize(
    ("name", "model"), [("clip", None), ("deepdanbooru", None), ("blip", "blip")]
)
def test_a_picture_is_described_by_the_captioner_that_is_named(
    world: World, http: Caller, name: str, model: str | None
) -> None:
    picture = f"data:image/png;base64,{PNG}"
    with asking(http, "/interrogate", image=picture, model=name) as reply:
        job = world.job(http)
        assert (job.task.kind.name, job.params.get("model")) == ("img2txt", model)
    refused(reply.result(WAIT_S), 410, "canceled")


WRONG: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("/txt2img", {"prompt": ""}, 422, "invalid_prompt", "the prompt is empty"),
    ("/txt2img", {"stpes": 3}, 422, "invalid_params", "body: unknown field 'stpes': did you mean"),
    ("/txt2img", {"n_iter": 5, "batch_size": 4}, 422, "invalid_params", "n_iter × batch_size: "),
    ("/txt2img", {"seed": -2}, 422, "invalid_params", "seed: "),
    ("/txt2img", {"enable_hr": True}, 422, "invalid_params", "enable_hr is True (bool), which is"),
    (
        "/txt2img",
        {"override_settings": {"sd_model_checkpoint": "inc"}},
        404,
        "model_not_found",
        "no model of txt2img is called 'inc': did you mean 'ink'?",
    ),
    (
        "/txt2img",
        {"override_settings": {"CLIP_stop_at_last_layers": 2}},
        422,
        "invalid_params",
        "override_settings.CLIP_stop_at_last_layers: Input should be 1",
    ),
    ("/txt2img", {"model": ["ink"]}, 422, "invalid_params", "model is ['ink'] (list)"),
    ("/options", {"sd_model_checkpoint": "blip"}, 404, "model_not_found", "no model of txt2img"),
    (
        "/options",
        {"sd_model": "ink"},
        422,
        "invalid_params",
        "body: unknown field 'sd_model': known: sd_model_checkpoint",
    ),
    ("/interrogate", {"image": "!"}, 422, "invalid_image", "image.data is not base64"),
    ("/interrogate", {"image": "https://a.example/a.png"}, 422, "url_refused", "image.url"),
    ("/interrogate", {"image": PNG, "model": "blib"}, 404, "model_not_found", "no model of img2"),
]


def test_what_is_wrong_is_said_as_clients_expect_it(world: World, http: Caller) -> None:
    http.post("/options", json={"sd_model_checkpoint": "ink"})
    for path, fields, status, code, says in WRONG:
        wanted = {"prompt": "a fox"} | fields if path == "/txt2img" else fields
        said = refused(http.post(path, json=wanted), status, code)
        assert said.startswith(says), said
    said = refused(
        http.post("/txt2img", json={"prompt": "a", "cfg_scale": 99}), 422, "invalid_params"
    )
    assert said.startswith("cfg_scale: invalid params: guidance: ")
    refused(http.post("/txt2img", content=b"{"), 415, "unsupported_media_type")
    refused(http.get("/progress", params={"skip": 1}), 422, "invalid_params")
    assert world.jobs(http) == []


def test_a_caller_of_whom_too_much_waits_is_told_to_come_later(world: World) -> None:
    with world.caller(max_queued=1) as http, asking(http):
        world.job(http)
        reply = http.post("/txt2img", json={"prompt": "a fox"})
        refused(reply, 429, "too_many_queued")
        assert int(reply.headers["Retry-After"]) >= 1


def test_a_key_may_come_as_a_password_on_these_routes_alone(world: World, http: Caller) -> None:
    for headers, status in (
        ({"Authorization": f"Bearer {http.token}"}, 200),
        ({}, 401),
        ({"Authorization": "Basic !"}, 401),
        ({"Authorization": "Basic bWU="}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"me:cm_no").decode()}, 401),
    ):
        reply = httpx2.get(f"{world.url}/sdapi/v1/options", headers=headers)
        assert reply.status_code == status, reply.text
        if status != 200:
            assert "Basic" in reply.headers["WWW-Authenticate"]
            assert "API key" in refused(reply, 401, "unauthorized")
    assert httpx2.get(f"{world.url}/v1/jobs", auth=("me", http.token)).status_code == 401


def test_no_page_of_another_site_uses_a_password_that_a_browser_keeps(http: Caller) -> None:
    for headers in ({"Origin": "https://a.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused(http.post("/interrupt", headers=headers), 403, "forbidden")
    assert http.post("/interrupt", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_models_are_listed_that_draw(http: Caller) -> None:
    for reply in (http.get("/sd-models"), http.post("/refresh-checkpoints")):
        assert [model["title"] for model in reply.json()] == ["ink", "scenes"]
        assert reply.json()[0]["hash"] == "v1"


def test_what_a_client_asks_for_before_it_begins_is_answered(http: Caller) -> None:
    for name in ("samplers", "schedulers", "upscalers"):
        [only] = http.get(f"/{name}").json()
        assert only["name"].lower() in ("automatic", "none")
    for name in ("latent-upscale-modes", "sd-vae", "loras"):
        assert http.get(f"/{name}").json() == []
    assert http.get("/scripts").json() == {"txt2img": [], "img2img": []}
    assert http.get("/memory").status_code == 404
