"""A kind that an installed package brings is served as those that ship: it is one file."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from crossmodal.errors import InvalidModel
from crossmodal.jobs.bulk import BulkItem
from crossmodal.kinds import registry, task
from crossmodal.kinds.task import Task
from crossmodal.processes import python_module
from crossmodal.settings import Settings, load_settings
from producer import Client, InvalidParams
from tests.browser import running_browser
from tests.fakes import img2img
from tests.gateway import Gateway, running_gateway
from tests.page import is_in, opened, submitted
from tests.servers import start_server
from tests.workers import environment, running_worker
from worker.host.models import load

WAIT_S = 60
CACHED = (registry.kinds, registry._by_params, task._by_name)


@dataclass(frozen=True)
class Served:
    """A worker and a gateway that have the kind installed, and what leads to them."""

    env: dict[str, str]
    settings: Settings
    gateway: Gateway


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    info = site / "img2img-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: img2img\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\nimg2img = {img2img.__name__}:IMG2IMG\n"
    )
    return site


@pytest.fixture(scope="module")
def served(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    server = start_server(folder / "valkey")
    settings = load_settings(
        broker_url=server.admin_url, result_backend="", storage_url=(folder / "storage").as_uri()
    )
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"), str(Path.cwd()))))
    env = environment(settings) | {"PYTHONPATH": path}
    with running_worker(env, folder / "worker", 4), running_gateway(env, folder) as gateway:
        yield Served(env, settings, gateway)
    server.stop()


@pytest.fixture
def client(served: Served, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client in this process, in which the package is installed for the while."""
    monkeypatch.syspath_prepend(site)
    for cached in CACHED:
        cached.cache_clear()
    with Client(served.settings) as client:
        yield client
    monkeypatch.undo()
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 100, 50)).save(file, "PNG")
    return file.getvalue()


def crossmodal(served: Served, *args: str) -> str:
    """What the command prints, in a process that finds the package."""
    argv = python_module("crossmodal.cli", *args)
    done = subprocess.run(argv, env=os.environ | served.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_submits_it_by_name(client: Client, picture: bytes) -> None:
    job = client.submit("img2img", prompt="a red circle", image=picture, count=2, seed=7)
    result = job.result(timeout_s=WAIT_S)
    assert (result.task, result.seed, len(result.images)) == ("img2img", 7, 2)
    drawn = Image.open(io.BytesIO(client.read(result.images[1])))
    assert drawn.info["parameters"].startswith("a red circle\nSeed: 8, Strength: 0.5, Size: 16x16")


def test_its_limits_and_its_fields_are_checked_at_submission(
    client: Client, picture: bytes
) -> None:
    with pytest.raises(InvalidParams, match=r"strength: .* less than or equal to 1"):
        client.submit("img2img", prompt="a circle", image=picture, strength=2.0)
    with pytest.raises(InvalidParams, match="unknown field 'strenght': did you mean 'strength'"):
        client.submit("img2img", prompt="a circle", image=picture, strenght=1.0)
    with pytest.raises(
        InvalidParams, match="there is no kind 'img2vid'; known kinds are txt2img, img2t"
    ):
        client.submit("img2vid", image=picture)


def test_a_batch_may_mix_it_with_others(client: Client, picture: bytes) -> None:
    items = [
        (Task("img2img"), BulkItem("a", {"prompt": "a circle", "seed": 3}, picture)),
        (Task("txt2img"), BulkItem("b", {"prompt": "a circle", "seed": 3})),
        (Task("img2img"), BulkItem("c", {"prompt": "a circle"}, b"no picture")),
    ]
    found = {result.custom_id: result for result in client.map_items(items)}
    assert [len(found[name].images) for name in "abc"] == [1, 1, 0]
    assert client.read(found["a"].images[0]) != client.read(found["b"].images[0])
    assert found["c"].failure is not None
    assert found["c"].failure.code == "invalid_image"


TWO_SIDES = """
import numpy as np

from crossmodal.models.contract import Caption, Model


class Describing(Model):
    kind = "img2txt"
    side = 8

    def load(self, folder, device): ...

    def run(self, batch):
        return [[Caption("a picture", -1.0)] for _ in batch]


class Drawing(Describing):
    kind = "img2img"
    side = 16

    def run(self, batch):
        return [np.zeros((8, 8, 3), np.uint8) for _ in batch]
"""


@pytest.mark.usefixtures("client")
def test_a_folder_whose_models_want_pictures_of_several_sides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "model.py").write_text(TWO_SIDES)
    settings = load_settings(bundle=str(tmp_path / "two"), allow_model_code="two")
    with pytest.raises(InvalidModel, match="different sides"):
        load(settings, "cpu", "cpu")


def test_http_takes_it_as_json_and_as_a_form(served: Served, picture: bytes) -> None:
    http = served.gateway.http
    wait = {"Prefer": "wait=60"}
    form = {"task": "img2img", "prompt": "a circle", "seed": "7", "strength": "0.25"}
    job = http.post("/v1/jobs", data=form, files={"file": picture}, headers=wait).json()
    assert (job["state"], job["params"]["strength"]) == ("succeeded", 0.25)
    body = {
        "task": "img2img",
        "prompt": "a circle",
        "seed": 7,
        "strength": 0.25,
        "image": {"key": job["params"]["image"]["key"]},
    }
    again = http.post("/v1/jobs", json=body, headers=wait).json()
    images = [one["result"]["images"][0]["sha256"] for one in (job, again)]
    assert images[0] == images[1]
    form |= {"format": "webp", "quality": "80", "embed_metadata": "false"}
    webp = http.post("/v1/jobs", data=form, files={"file": picture}, headers=wait).json()
    [image] = webp["result"]["images"]
    assert (image["media_type"], image["key"][-7:]) == ("image/webp", "/0.webp")
    drawn = Image.open(io.BytesIO(http.get(image["url"]).content))
    assert (drawn.format, len(drawn.getexif())) == ("WEBP", 0)
    refused = http.post("/v1/jobs", json=body | {"strength": 2})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_params")


def test_the_document_has_its_params_and_example(served: Served) -> None:
    document = served.gateway.http.get("/openapi.json").json()
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    strength = document["components"]["schemas"]["Img2ImgRequest"]["properties"]["strength"]
    assert (strength["minimum"], strength["maximum"], strength["default"]) == (0, 1, 0.5)
    assert content["application/json"]["examples"]["img2img"]["value"]["strength"] == 0.7
    assert content["multipart/form-data"]["schema"]["properties"]["strength"] == {
        name: value for name, value in strength.items() if name != "default"
    }


def test_the_command_line_has_a_command_for_it(
    served: Served, picture: bytes, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(picture)
    assert "begin with another" in crossmodal(served, "--help")
    assert "--strength" in crossmodal(served, "img2img", "--help")
    out = tmp_path / "out.png"
    crossmodal(
        served, "img2img", "a circle", str(tmp_path / "in.png"), "--strength", "1", "-o", str(out)
    )
    with Image.open(out) as drawn:
        assert drawn.info["parameters"].startswith("a circle\nSeed: ")


def test_a_batch_file_may_ask_for_it(served: Served, picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(picture)
    body = {"prompt": "a circle", "image": {"path": "in.png"}}
    lines = [
        {"custom_id": "a", "url": "/v1/img2img", "body": body},
        {"custom_id": "b", "url": "/v1/txt2img", "body": {"prompt": "a circle"}},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out.jsonl"
    crossmodal(served, "batch", "run", str(tmp_path / "in.jsonl"), "-o", str(out))
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["custom_id"] for line in made if line["response"]) == ["a", "b"]


def test_its_pictures_are_kept_for_as_long_as_its_jobs(
    served: Served, client: Client, picture: bytes
) -> None:
    job = client.submit("img2img", prompt="a square", image=picture)
    job.result(timeout_s=WAIT_S)
    key = client.record(job.id).params["image"]["key"]
    crossmodal(served, "gc", "--older-than", "0", "--grace", "0")
    assert client.storage.head(key) is not None
    client.delete(job.id)


@pytest.mark.slow
def test_the_page_has_its_form_its_filter_and_its_cards(served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    with running_browser() as browser, opened(browser, served.gateway) as page:
        page.get_by_role("radio", name="img2img").first.check()
        expect(page.get_by_role("slider", name="Strength")).to_have_value("0.5")
        page.fill("#field-prompt", "a red circle")
        page.set_input_files("#picture", tmp_path / "red.png")
        expect(page.locator("#drop")).to_contain_text("red.png")  # and is sent with the rest
        card = submitted(page, lambda: page.click("#send"))
        is_in(card, "succeeded")
        expect(card.locator("img")).to_be_visible()
        page.locator("#filter").get_by_role("radio", name="img2img").check()
        expect(page.locator("#gallery article:not([data-task=img2img])")).to_have_count(0)
        expect(page.locator("#gallery article").first).to_be_visible()
