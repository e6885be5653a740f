"""Six folders of diffusers and three captioners, served by one worker on one device."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery import Celery
from PIL import Image

from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.record import ModelState
from crossmodal.kinds.task import Task
from producer import Client
from tests.commands import run_command
from tests.conftest import settings_of, stack_environment
from tests.gateway import Gateway, running_gateway
from tests.servers import start_server
from tests.tiny import captioners, pipelines
from tests.waiting import until
from tests.workers import real_worker

pytestmark = pytest.mark.slow
WAIT_S = 120.0
LOAD_S = 300.0
OWN: Any = {"steps": 2, "width": 32, "height": 32}


@dataclass(frozen=True)
class Served:
    env: dict[str, str]
    client: Client
    gateway: Gateway
    picture: bytes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("nine")
    for name in pipelines.FAMILIES:
        pipelines.make(name, folder / "models" / name)
    for name in captioners.FAMILIES:
        captioners.make(name, folder / "models" / name)
    server = start_server(folder / "valkey")
    env = stack_environment(server.port, folder) | {
        "CROSSMODAL_MODELS": str(folder / "models"),
        "CROSSMODAL_DEVICE_MEMORY": str(2**40),
    }
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    with (
        real_worker(env, folder / "worker", 8),
        running_gateway(env, folder) as gateway,
        Client(settings_of(env)) as client,
    ):
        wanted = {*pipelines.FAMILIES, *captioners.FAMILIES}

        def are_loaded() -> bool:
            known = client.models(max_age_s=0)
            return all(known.state(name) is ModelState.LOADED for name in wanted)

        until(are_loaded, LOAD_S, "the loading of nine models")
        yield Served(env, client, gateway, file.getvalue())
    server.stop()


@pytest.mark.parametrize("name", list(pipelines.FAMILIES))
def test_a_pipeline_draws_for_all_who_can_ask(served: Served, name: str, tmp_path: Path) -> None:
    client = served.client
    drawn = client.txt2img("a red circle", model=name, seed=7, **OWN).result(timeout_s=WAIT_S)
    assert (drawn.model, drawn.images[0].width) == (name, 32)
    first = client.read(drawn.images[0])
    body = {"task": "txt2img", "model": name, "prompt": "a red circle", "seed": 7, **OWN}
    reply = served.gateway.http.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"})
    assert (reply.json()["state"], reply.json()["result"]["model"]) == ("succeeded", name)
    options = [part for n, value in OWN.items() for part in ("-p", f"{n}={value}")]
    out = tmp_path / "drawn.png"
    run_command(
        served.env,
        "txt2img",
        "a red circle",
        "--model",
        name,
        "--seed",
        "7",
        *options,
        "-o",
        str(out),
    )
    assert np.array_equal(pixels(out.read_bytes()), pixels(first))
    plain = plainly(served, "txt2img", {n: v for n, v in body.items() if n != "task"})
    assert np.array_equal(pixels(client.read(plain.images[0])), pixels(first))
    items = [
        (Task("txt2img"), BulkItem(str(i), {"prompt": "a cat", "model": name, **OWN}))
        for i in range(3)
    ]
    assert all(item.images for item in client.map_items(items))


@pytest.mark.parametrize("name", list(captioners.FAMILIES))
def test_a_captioner_describes_for_all_who_can_ask(
    served: Served, name: str, tmp_path: Path
) -> None:
    client = served.client
    found = client.img2txt(served.picture, model=name, max_words=6).result(timeout_s=WAIT_S)
    text = found.captions[0].text
    assert found.model == name
    reply = served.gateway.http.post(
        "/v1/jobs",
        data={"task": "img2txt", "model": name, "max_words": "6"},
        files={"file": ("photo.png", served.picture, "image/png")},
        headers={"Prefer": "wait=60"},
    )
    assert reply.json()["result"]["captions"][0]["text"] == text
    (tmp_path / "photo.png").write_bytes(served.picture)
    argv = ("img2txt", str(tmp_path / "photo.png"), "--model", name, "--max-words", "6", "--json")
    [row] = json.loads(run_command(served.env, *argv).stdout)
    assert row["captions"][0]["text"] == text
    image = client.upload(served.picture).model_dump()
    plain = plainly(served, "img2txt", {"image": image, "model": name, "max_words": 6})
    assert plain.captions[0].text == text


def plainly(served: Served, task: str, params: dict[str, Any]) -> Any:
    """The result of a job that plain Celery has sent."""
    app: Any = Celery(broker=served.env["CELERY_BROKER_URL"])
    sent = app.send_task(f"crossmodal.{task}", kwargs=params)
    app.close()

    def is_recorded() -> bool:
        return sent.id in {job.id for job in served.client.jobs().jobs}

    until(is_recorded, what="the record of a plain job")
    return served.client.job(sent.id).result(timeout_s=WAIT_S)


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_prompt_may_be_as_long_as_the_model_allows(served: Served) -> None:
    body = {"task": "txt2img", "model": "sd", "prompt": "a red circle " * 300, **OWN}
    reply = served.gateway.http.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"})
    assert (reply.json()["state"], reply.status_code) == ("succeeded", 200)
    assert "of which the model reads 77" in reply.json()["result"]["warnings"][0]
    reply = served.gateway.http.post("/v1/jobs", json=body | {"prompt": "a red circle " * 400})
    assert reply.status_code == 422
    assert "4000 are allowed" in reply.json()["detail"]


def test_all_are_told_with_their_params(served: Served) -> None:
    listed = served.gateway.http.get("/v1/models").json()["data"]
    by_name = {model["name"]: model for model in listed}
    assert set(by_name) == {"scenes", *pipelines.FAMILIES, *captioners.FAMILIES}
    steps = by_name["sdxl"]["kinds"]["txt2img"]["params"]["properties"]["steps"]
    assert (steps["minimum"], steps["maximum"]) == (1, 200)
    assert {model["state"] for model in listed} == {"loaded"}
    done = run_command(served.env, "models", "list")
    assert all(name in done.stdout for name in by_name)
    shown = run_command(served.env, "models", "show", "sdxl").stdout
    assert "negative_prompt" in shown
