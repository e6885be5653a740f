"""A real Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import need

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT_MS = 60_000  # longer than Playwright's 5 s: other tests run at the same time
expect.set_options(timeout=WAIT_MS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a headless Chromium; skip the test if none is installed."""
    need(CHROMIUM is not None, "a Chromium browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()
