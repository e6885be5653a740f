"""Models and queues, as the page shows them."""

import json
import re
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.gateway import running_gateway
from tests.page import draw, is_in, show
from tests.studio import Studio


def test_models_tell_where_they_are_loaded_what_they_need_and_what_waits(
    page: Page, studio: Studio
) -> None:
    models = show(page, "models")
    expect(page).to_have_title("Models – crossmodal")
    expect(page.locator("#models-title")).to_be_focused()
    painter = models.locator("[data-model=painter]")
    expect(painter.locator(".state")).to_have_text("Loaded")
    expect(painter).to_contain_text(re.compile(r"Loaded on\s*cpu of \S+"))
    expect(painter).to_contain_text(re.compile(r"Memory\s*\d+ MB at most"))
    expect(painter).to_contain_text("0 waiting, 0 running")
    job = studio.client.txt2img("hills", model="painter", steps=30)
    expect(painter).to_contain_text("0 waiting, 1 running")
    job.cancel()
    expect(painter).to_contain_text("0 waiting, 0 running")


def test_a_broken_model_tells_its_error(page: Page) -> None:
    broken = show(page, "models").locator("[data-model=broken]")
    expect(broken.locator(".state")).to_have_text("Broken")
    expect(broken.locator("code")).to_have_text("model_invalid")
    expect(broken).to_contain_text("its weights are of another version")


def test_a_view_has_an_address_and_back_leads_to_the_one_before(page: Page, studio: Studio) -> None:
    show(page, "models")
    show(page, "queues")
    page.reload()
    expect(page.locator("#view-queues")).to_be_visible()
    page.go_back()
    expect(page.locator("#view-models")).to_be_visible()
    expect(page.locator('header a[href="#models"]')).to_have_attribute("aria-current", "page")


def test_a_queue_is_paused_and_resumed_by_who_may(page: Page, studio: Studio) -> None:
    queues = show(page, "queues")
    row = queues.locator("[data-queue='txt2img.painter']")
    queues.get_by_role("button", name="Pause txt2img.painter", exact=True).click()
    expect(row.get_by_text("paused")).to_be_visible()
    show(page, "create")
    page.select_option("#model", "painter")
    card = draw(page, "hills that wait")
    expect(card.locator(".state")).to_contain_text("waits for txt2img.painter to be resumed")
    show(page, "queues")
    expect(row.locator("[data-field=depth]")).to_have_text("1")
    queues.get_by_role("button", name="Resume txt2img.painter", exact=True).click()
    expect(row.get_by_text("paused")).to_be_hidden()
    is_in(card, "succeeded")


def test_a_pause_that_is_refused_says_why(page: Page, studio: Studio) -> None:
    queues = show(page, "queues")
    body = json.dumps({"detail": "this is for operators"})
    page.route("**/pause", lambda route: route.fulfill(status=403, body=body))
    queues.get_by_role("button", name="Pause txt2img", exact=True).click()
    expect(queues.get_by_role("alert").first).to_have_text("this is for operators")


def test_who_may_not_pause_has_no_button_for_it(
    browser: Browser, studio: Studio, tmp_path: Path
) -> None:
    _, token = studio.client.keys.create("no operator")
    with running_gateway(studio.env, tmp_path, "--keys") as gateway:
        page = browser.new_page()
        page.goto(gateway.url)
        page.fill("#key", token)
        page.keyboard.press("Enter")
        row = show(page, "queues").locator("[data-queue=txt2img]")
        expect(row).to_be_visible()
        expect(row.locator("button")).to_be_hidden()
        page.close()
