"""The page before a ledger of 5,000 jobs."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from producer import Client
from tests.conftest import settings_of, stack_environment
from tests.gateway import Gateway, running_gateway
from tests.page import draw, is_in, opened
from tests.servers import start_server
from tests.waiting import until
from tests.workers import running_worker

JOBS = 5_000
QUICK_MS = 10_000.0  # more is a page that hangs, also on a busy machine
TO_THE_END = """(count) => new Promise((resolve) => {
    const frame = () => {
        scrollTo({top: document.body.scrollHeight, behavior: "instant"});
        if (document.querySelector("#gallery").childElementCount >= count) resolve();
        else requestAnimationFrame(frame);
    };
    frame();
})"""
LONGEST_MS = """() => new Promise((resolve) => {
    let [last, longest, frames] = [performance.now(), 0, 0];
    const frame = (now) => {
        longest = Math.max(longest, now - last);
        last = now;
        scrollBy({top: -2_000, behavior: "instant"});
        if (frames++ < 60) requestAnimationFrame(frame);
        else resolve(longest);
    };
    requestAnimationFrame(frame);
})"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway, a quick worker, and so many jobs that have ended."""
    root = tmp_path_factory.mktemp("many")
    server = start_server(root / "valkey")
    env = stack_environment(server.port, root)
    try:
        with (
            Client(settings_of(env)) as client,
            running_worker(env, root / "worker", 64),
            running_gateway(env, root) as gateway,
        ):
            for i in range(JOBS):
                client.txt2img(f"picture {i}", seed=i)
            until(lambda: _are_done(client), 300)
            yield gateway
    finally:
        server.stop()


def _are_done(client: Client) -> bool:
    [queue] = [one for one in client.queues() if one.queue == "txt2img"]
    return queue.depth == 0 and queue.running == 0


@pytest.fixture(scope="module")
def page(browser: Browser, many: Gateway) -> Iterator[Page]:
    with opened(browser, many) as page:
        yield page


def test_only_the_newest_are_read_at_first(page: Page) -> None:
    cards = page.locator("#gallery article")
    expect(cards.first).to_contain_text(f"picture {JOBS - 1}")
    assert cards.count() <= 48


def test_all_of_them_can_be_scrolled_to_and_it_stays_quick(page: Page) -> None:
    cards = page.locator("#gallery article")

    page.evaluate(TO_THE_END, JOBS)
    assert cards.count() == JOBS
    expect(cards.last).to_contain_text("picture 0")
    assert page.evaluate(LONGEST_MS) < QUICK_MS
    images = page.evaluate("document.querySelectorAll('#gallery img').length")
    assert images < 200  # those that are far away let go of their memory


def test_among_all_of_them_a_job_is_drawn_and_looked_at(page: Page) -> None:
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    card = draw(page, "one more")
    is_in(card, "succeeded")
    expect(page.locator("#gallery article").first).to_contain_text("one more")
    card.locator(".tile").click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer h2")).to_have_text(f"picture {JOBS - 1}")
    page.keyboard.press("Escape")
