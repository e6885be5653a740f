"""Previews of what a model of one's own draws, from its class to those who watch."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from crossmodal.jobs.record import Progress
from producer import Client
from tests.browser import running_browser
from tests.conftest import settings_of, stack_environment
from tests.gateway import Gateway, running_gateway
from tests.page import draw, is_in, opened
from tests.servers import start_server
from tests.waiting import until
from tests.workers import real_worker

WAIT_S = 60.0
STRIPES = """
import time

import numpy as np

from crossmodal.models.contract import Batch, Model

STEPS = 16


class Stripes(Model):
    kind = "txt2img"

    def load(self, folder, device):
        self.calls = folder / "calls"

    def run(self, batch: Batch):
        for step in range(1, STEPS + 1):
            time.sleep(0.5)  # in place of a large model's computing
            batch.step(step, STEPS, preview=lambda: [self.sketch(step) for _ in batch])
        return [np.full((64, 32, 3), 255, np.uint8) for _ in batch]

    def sketch(self, step):
        with self.calls.open("a") as calls:
            calls.write("called ")
        return np.full((64, 32, 3), step / STEPS)
"""


@dataclass(frozen=True)
class World:
    """A gateway, a worker of such a model, and a file that says whether it was asked."""

    client: Client
    gateway: Gateway
    calls: Path

    def stored(self) -> list[str]:
        return [blob.key for blob in self.client.storage.list("previews")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("previews")
    folder = root / "stripes"
    folder.mkdir()
    (folder / "model.py").write_text(STRIPES)
    server = start_server(root / "valkey")
    env = stack_environment(server.port, root) | {
        "CROSSMODAL_BUNDLE": str(folder),
        "CROSSMODAL_ALLOW_MODEL_CODE": "stripes",
    }
    try:
        with (
            real_worker(env, root / "worker", 8),
            running_gateway(env, root) as gateway,
            Client(settings_of(env)) as client,
        ):
            yield World(client, gateway, folder / "calls")
    finally:
        server.stop()


def level(data: bytes) -> int:
    """How bright a preview is."""
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 64))
        return int(np.asarray(picture).mean())


def progress_events(world: World, job: str) -> Iterator[Any]:
    name = ""
    with world.gateway.http.stream("GET", f"/v1/jobs/{job}/events") as reply:
        for line in reply.iter_lines():
            field, _, value = line.partition(": ")
            name = value if field == "event" else name
            if field == "data" and name == "progress":
                yield json.loads(value)


def test_nothing_is_made_or_stored_for_a_job_that_nobody_watches(world: World) -> None:
    job = world.client.txt2img("a red circle", seed=1)
    until(lambda: job.status().progress is not None)
    assert job.wait(WAIT_S) == "succeeded"
    assert (world.calls.exists(), world.stored()) == (False, [])


def test_a_watched_job_is_seen_over_http_until_its_end(world: World) -> None:
    job = world.client.txt2img("a red circle", seed=1)
    levels: dict[str, int] = {}
    for event in progress_events(world, job.id):
        if (url := event["preview_url"]) and url not in levels:
            reply = world.gateway.http.get(url)
            if reply.status_code == 404 and levels:  # the job has just ended
                continue
            assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
            assert reply.headers["cache-control"] == "no-store"
            levels[url] = level(reply.content)
    found = list(levels.values())
    assert len(found) >= 2
    assert found == sorted(found)
    assert f"/v1/blobs/previews/{job.id}/1.jpeg?number=1" in next(iter(levels))
    assert job.status().progress is None
    until(lambda: world.stored() == [])


def test_the_client_is_shown_previews_while_it_follows_events(world: World) -> None:
    job = world.client.txt2img("a red circle", seed=2)
    seen: list[int] = []
    for event in job.events():
        if isinstance(event, Progress) and event.preview and not seen:
            seen.append(level(world.client.read(event.preview)))
            job.cancel()
    assert len(seen) == 1
    until(lambda: world.stored() == [])


def test_the_page_shows_what_is_drawn_so_far(world: World) -> None:
    with running_browser() as browser, opened(browser, world.gateway) as page:
        card = draw(page, seed="7")
        expect(card.locator("img.preview")).to_have_js_property("naturalWidth", 32)
        is_in(card, "succeeded")
        expect(card.locator("img")).to_have_count(1)
        expect(card.locator("img.preview")).to_have_count(0)
    until(lambda: world.stored() == [])
