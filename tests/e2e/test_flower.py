"""Flower's pages as a person sees them, in a real browser."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import HttpCredentials, Locator, Page, expect

from crossmodal.jobs.record import JobState
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from producer import Client
from tests.browser import WAIT_MS, running_browser
from tests.conftest import RunningStack
from tests.waiting import until
from tests.workers import suspended

LONG_PROMPT = "a large red circle on a white background and " + "a small blue star " * 10


@pytest.fixture
def page() -> Iterator[Page]:
    with running_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 700})
        page.set_default_timeout(WAIT_MS)
        yield page


@pytest.fixture
def flower(stack: RunningStack, tmp_path: Path) -> Iterator[str]:
    """The address of a Flower that watches the session's stack."""
    with _flower(stack, tmp_path, {}) as address:
        until(lambda: _status(address) == 200, 60, "Flower")
        yield address


class _flower:
    def __init__(self, stack: RunningStack, folder: Path, more: dict[str, str]) -> None:
        self._address = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (folder / "flower.log").open("wb")
        self._stack = Stack({**stack.env, "FLOWER_PORT": str(port), **more}, self._log)

    def __enter__(self) -> str:
        assert self._stack.start_flower()
        return self._address

    def __exit__(self, *_: object) -> None:
        self._stack.stop()
        self._log.close()


def _status(address: str) -> int | None:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        status = e.code
        e.close()
        return status
    except OSError:
        return None


def test_flower_shows_the_worker_and_the_finished_jobs(
    page: Page, flower: str, stack: RunningStack, tmp_path: Path
) -> None:
    until(lambda: _sees_worker(flower), 60, "the worker's first heartbeat")
    asked = b"Events of group {task} enabled by remote"
    until(lambda: asked in stack.log.read_bytes(), 60, "Flower's asking for events")
    with Client(stack.settings) as client:
        jobs = [client.txt2img(LONG_PROMPT, seed=i) for i in range(5)]
        for job in jobs:
            job.result(timeout_s=60)
        names = [worker.name for worker in client.workers()]
    assert len(names) == 1

    page.goto(f"{flower}/workers")
    for name in names:
        expect(page.get_by_text(name)).to_be_visible()
    expect(page.get_by_text("Online").first).to_be_visible()
    page.screenshot(path=tmp_path / "workers.png")

    row = page.locator("tr", has=page.get_by_text(jobs[0].id))
    until(lambda: _shows(page, f"{flower}/tasks", row, "SUCCESS"), 60, "the event of its end")
    expect(row).to_contain_text("crossmodal.txt2img")
    expect(row).to_contain_text("a large red circle")
    expect(row).to_contain_text(f"'{LONG_PROMPT[:80]}…'")
    expect(row).to_contain_text("'seed': 0")
    page.screenshot(path=os.environ.get("FLOWER_SCREENSHOT", tmp_path / "tasks.png"))

    with Client(stack.settings) as client:
        expired = client.txt2img(LONG_PROMPT, expires_in_s=0)
        canceled = client.txt2img(LONG_PROMPT, count=16)
        assert canceled.cancel() is JobState.CANCELED
    for job in (expired, canceled):
        row = page.locator("tr", has=page.get_by_text(job.id))
        until(lambda r=row: _shows(page, f"{flower}/tasks", r, "REVOKED"), 60, "the event")  # type: ignore[misc]


def test_a_running_job_that_is_terminated_in_flower_is_canceled(
    stack: RunningStack, tmp_path: Path
) -> None:
    login = HttpCredentials(username="me", password="secret")
    with (
        _flower(stack, tmp_path, {"FLOWER_BASIC_AUTH": "me:secret"}) as address,
        running_browser() as browser,
    ):
        page = browser.new_page(http_credentials=login)
        page.set_default_timeout(WAIT_MS)
        until(lambda: _status(address) == 401, 60, "Flower")
        until(lambda: _tells(page, f"{address}/workers", "Online"), 60, "the worker")
        with suspended(stack.model_host), Client(stack.settings) as client:
            job = client.txt2img(LONG_PROMPT)
            until(lambda: job.status().state is JobState.RUNNING, 60, "its start")
            until(lambda: _tells(page, f"{address}/task/{job.id}", "STARTED"), 60, "the event")
            page.locator("#task-terminate").click()
            until(lambda: job.status().state is JobState.CANCELED, 60, "the cancellation")
            until(lambda: _tells(page, f"{address}/task/{job.id}", "REVOKED"), 60, "the event")
            assert stack.celery.is_running()


def _tells(page: Page, url: str, text: str) -> bool:
    """Whether the page, which does not renew itself, says this."""
    page.goto(url)
    return text in page.inner_text("body")


def _sees_worker(flower: str) -> bool:
    try:
        with urllib.request.urlopen(f"{flower}/workers?json=1", timeout=5) as answer:
            return b'"status": true' in answer.read()
    except TimeoutError:
        return False


def _shows(page: Page, url: str, row: Locator, text: str) -> bool:
    """Whether the page, which does not renew itself, shows the row with this text."""
    page.goto(url)
    page.wait_for_load_state("networkidle")
    return row.count() == 1 and text in row.inner_text()


def test_flower_asks_for_the_login_that_is_set(stack: RunningStack, tmp_path: Path) -> None:
    with _flower(stack, tmp_path, {"FLOWER_BASIC_AUTH": "me:secret"}) as address:
        until(lambda: _status(address) is not None, 60, "Flower")
        assert _status(address) == 401
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, address, "me", "secret")
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        with opener.open(address, timeout=5) as answer:
            assert answer.status == 200


def test_flower_listens_on_loopback_alone(flower: str) -> None:
    import psutil

    port = int(flower.rpartition(":")[2])
    listening = [
        str(c.laddr).partition("port")[0]
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and f"port={port})" in str(c.laddr)
    ]
    assert listening == ["addr(ip='127.0.0.1', "]


def test_flower_says_that_a_worker_is_not_shut_down(stack: RunningStack, tmp_path: Path) -> None:
    """Workers refuse it, and it would be told that they did it: it asks for no reply."""
    with _flower(stack, tmp_path, {"FLOWER_UNAUTHENTICATED_API": "true"}) as address:
        until(lambda: _status(address) == 200, 60, "Flower")
        until(lambda: _sees_worker(address), 60, "the worker's first heartbeat")
        with urllib.request.urlopen(f"{address}/api/workers?refresh=1", timeout=30) as answer:
            [worker] = json.load(answer)
        for name, status, says in (
            (worker, 403, "start, stop and limit workers on their own machines"),
            ("nobody", 404, "nobody"),
        ):
            url = f"{address}/api/worker/shutdown/{name}"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30)
            with refused.value as answer:
                assert (answer.code, says in answer.read().decode()) == (status, True)
    assert stack.celery.is_running()


def test_flower_says_where_it_is_as_a_url_has_it(stack: RunningStack, tmp_path: Path) -> None:
    """An IPv6 address in brackets, and the port that it was given."""
    more = {"FLOWER_ADDRESS": "::1", "FLOWER_PORT": "0"}
    with _flower(stack, tmp_path, more):
        log = tmp_path / "flower.log"
        until(lambda: "Visit me at" in log.read_text(), 60, "Flower")
        found = re.search(r"Visit me at (http://\[::1\]:[1-9]\d*)\n", log.read_text())
        assert found, log.read_text()
        until(lambda: _status(found[1]) == 200, 60, "an answer there")
