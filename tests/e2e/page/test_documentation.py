"""The documentation of the API, which is a page of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from crossmodal.settings import Settings
from producer import Client
from tests.browser import WAIT_MS
from tests.gateway import in_thread


@pytest.mark.parametrize("keys", [False, True])
def test_the_documentation_is_a_page_that_can_be_tried_out(
    browser: Browser, settings: Settings, keys: bool
) -> None:
    with in_thread(settings, needs_keys=keys) as url, documentation(browser, url) as page:
        if keys:
            with Client(settings) as client:
                _, token = client.keys.create("reader")
            page.get_by_role("button", name="Authorize").first.click()
            page.locator("#auth-bearer-value").fill(token)
            page.locator(".auth-btn-wrapper .authorize").first.click()
            page.locator(".auth-btn-wrapper .btn-done").first.click()
        listing = page.locator("#operations-jobs-jobs_list")
        listing.locator("button.opblock-summary-control").click()
        listing.get_by_role("button", name="Try it out").click()
        listing.get_by_role("button", name="Execute").click()
        expect(listing.locator(".live-responses-table .response-col_status").last).to_contain_text(
            "200"
        )


@contextmanager
def documentation(browser: Browser, url: str) -> Iterator[Page]:
    """The page of the API, open; it may ask nobody but the gateway, and break no policy of it."""
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):  # others are hints for who wrote Swagger UI
            faults.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    yield page
    assert [u for u in asked if not u.startswith((url, "data:", "blob:"))] == []
    assert faults == []
    page.close()
