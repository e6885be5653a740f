"""The page in a browser, and a user's actions on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.browser import WAIT_MS
from tests.gateway import Gateway

PROMPT = "a large red circle on a white background"


@contextmanager
def opened(
    browser: Browser, gateway: Gateway, width: int = 1_280, scheme: str = "light", url: str = ""
) -> Iterator[Page]:
    """Open the page in a private browser context; errors in its console fail the test."""
    url = url or gateway.url
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=gateway.url)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    expect(page.locator("#field-prompt")).to_be_visible()
    yield page
    assert errors == []
    context.close()


def submitted(page: Page, act: Callable[[], object]) -> Locator:
    """Call `act`, and return the card of the job that it submits."""
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        act()
    return page.locator(f'#gallery article[data-job="{answer.value.json()["id"]}"]')


def draw(page: Page, prompt: str = PROMPT, **fields: str) -> Locator:
    """Submit a prompt, and return its card."""
    page.fill("#field-prompt", prompt)
    for name, value in fields.items():
        page.fill(f"#field-{name}", value)
    card = submitted(page, lambda: page.click("#send"))
    expect(card).to_be_visible()
    return card


def show(page: Page, view: str) -> Locator:
    """Click through to a view."""
    page.click(f'header a[href="#{view}"]')
    found = page.locator(f"#view-{view}")
    expect(found).to_be_visible()
    return found


def is_in(card: Locator, state: str) -> None:
    expect(card).to_have_attribute("data-state", state)
