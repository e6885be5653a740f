"""The page for those who have no pointer, no large screen, or do not see it."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.axe import faults, script
from tests.gateway import running_gateway
from tests.page import draw, is_in, opened, show
from tests.studio import Studio
from tests.waiting import until

SAID = """() => {
    window.said = [];
    const announcer = document.querySelector("#announcer");
    new MutationObserver(() => window.said.push(announcer.textContent))
        .observe(announcer, {childList: true, characterData: true, subtree: true});
}"""
ANNOUNCE = """async () => {
    const { announce } = await import("/page/announcer.js");
    for (let i = 1; i <= 6; i++) announce(`Done ${i}`);
}"""
FOCUS = """() => {
    const {width, height} = document.activeElement.getBoundingClientRect();
    const {outlineStyle} = getComputedStyle(document.activeElement);
    const label = document.activeElement.closest("label:has(:focus-visible)");
    return {name: document.activeElement.id || document.activeElement.value
                  || document.activeElement.textContent.trim(),
            isSeen: width > 0 && height > 0,
            isMarked: outlineStyle !== "none" || Boolean(label)
                      && getComputedStyle(label).outlineStyle !== "none"};
}"""


@pytest.fixture(scope="module", params=["light", "dark"])
def drawn(request: pytest.FixtureRequest, browser: Browser, studio: Studio) -> Iterator[Page]:
    """The page, with jobs of all sorts, in one of its two looks."""
    with opened(browser, studio.gateway, scheme=request.param) as page:
        is_in(draw(page, "a red circle", count="3"), "succeeded")
        is_in(draw(page, "zorg frob"), "failed")
        page.select_option("#model", "painter")
        is_in(draw(page, "hills", steps="200"), "running")
        running = page.locator("[data-state=running]").first.get_attribute("data-job")
        yield page
        studio.gateway.http.post(f"/v1/jobs/{running}/cancel")  # it may have ended by now


@pytest.fixture(scope="module")
def axe() -> str:
    return script()


def test_no_view_has_a_serious_fault(drawn: Page, axe: str) -> None:
    assert faults(drawn, axe) == []
    drawn.get_by_role("radio", name="Describe").check()
    drawn.get_by_role("radio", name="Batches").check()
    assert faults(drawn, axe) == []
    drawn.get_by_role("radio", name="Draw").check()
    drawn.get_by_role("radio", name="All").check()
    for view in ("models", "queues"):
        show(drawn, view)
        assert faults(drawn, axe) == [], view
    show(drawn, "create")


def test_no_dialog_has_a_serious_fault(drawn: Page, axe: str) -> None:
    drawn.locator("#gallery article", has_text="a red circle").first.locator(".tile").first.click()
    expect(drawn.locator("#viewer img")).to_be_visible()
    assert faults(drawn, axe) == []
    drawn.locator("#viewer").get_by_role("button", name="Delete").click()
    expect(drawn.locator("#confirm")).to_be_visible()
    assert faults(drawn, axe) == []
    drawn.keyboard.press("Escape")
    drawn.keyboard.press("Escape")
    expect(drawn.locator("#viewer")).to_be_hidden()


def test_the_key_is_asked_for_without_a_fault(
    browser: Browser, studio: Studio, axe: str, tmp_path: Path
) -> None:
    studio.client.keys.create("access")
    with running_gateway(studio.env, tmp_path, "--keys") as gateway:
        page = browser.new_page()
        page.goto(gateway.url)
        expect(page.get_by_label("API key")).to_be_focused()
        assert faults(page, axe) == []
        page.close()


def test_tab_leads_through_the_page_in_the_order_that_is_seen(page: Page) -> None:
    is_in(draw(page, "a red circle"), "succeeded")
    page.reload()
    expect(page.get_by_role("button", name="Describe this").first).to_be_visible()
    found = []
    for _ in range(24):
        page.keyboard.press("Tab")
        state = page.evaluate(FOCUS)
        assert state["isSeen"], state
        assert state["isMarked"], state
        found.append(state["name"])
    wanted = [
        "Skip to the gallery",
        "Create",
        "Models",
        "Queues",
        "API",
        "txt2img",
        "model",
        "field-prompt",
        "field-count",
        "field-seed",
        "field-temperature",
        "Files",
        "send",
        "all",
        "Again",
        "Again with another seed",
        "Describe this",
        "Delete",
    ]
    places = [found.index(name) for name in wanted]
    assert all(before < after for before, after in pairwise(places)), found


def test_the_skip_link_leads_to_the_gallery(page: Page) -> None:
    page.focus(".skip")
    page.keyboard.press("Enter")
    expect(page.locator("#jobs")).to_be_focused()
    expect(page.locator("#view-create")).to_be_visible()


def test_a_job_is_announced_when_it_is_taken_and_when_it_ends_and_not_at_each_step(
    page: Page,
) -> None:
    page.evaluate(SAID)
    page.select_option("#model", "painter")
    is_in(draw(page, "hills", steps="12"), "succeeded")
    until(lambda: page.evaluate("window.said.some((text) => text.startsWith('Done'))"))
    said = page.evaluate("window.said")
    assert said[0] == "Queued: hills"
    assert re.fullmatch(r"Done in [\d.]+ m?s: hills", said[-1])
    assert len(said) == 2


def test_what_happens_at_once_is_said_at_once(page: Page) -> None:
    page.evaluate(ANNOUNCE)
    expect(page.locator("#announcer")).to_have_text("Done 6. And 5 more changes.")


def test_who_wants_no_motion_gets_none(browser: Browser, studio: Studio) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(studio.gateway.url)
    page.select_option("#model", "painter")
    card = draw(page, "hills", steps="10")
    is_in(card, "running")
    assert page.evaluate("document.getAnimations().length") == 0
    context.close()


@pytest.mark.parametrize("view", ["create", "models", "queues"])
def test_each_view_fits_a_phone(browser: Browser, studio: Studio, axe: str, view: str) -> None:
    with opened(browser, studio.gateway, width=360) as page:
        show(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert faults(page, axe) == []


def test_the_lightbox_fits_a_phone(browser: Browser, studio: Studio) -> None:
    with opened(browser, studio.gateway, width=360) as page:
        card = draw(page, "a red circle")
        is_in(card, "succeeded")
        card.locator(".tile").click()
        box = page.locator("#viewer").bounding_box()
        assert box == {"x": 0, "y": 0, "width": 360, "height": 900}
        expect(page.locator("#viewer img")).to_be_in_viewport()
        expect(page.locator("#viewer .download")).to_be_in_viewport()
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#viewer")).to_be_hidden()
