"""The page once, in a real browser; the rest of it is in tests/e2e."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser import running_browser
from tests.conftest import RunningStack
from tests.gateway import running_gateway
from tests.page import PROMPT, draw, is_in, opened


def test_a_prompt_becomes_pictures_before_ones_eyes(stack: RunningStack, tmp_path: Path) -> None:
    with (
        running_gateway(stack.env, tmp_path) as gateway,
        running_browser() as browser,
        opened(browser, gateway) as page,
    ):
        card = draw(page, count="2", seed="7")
        is_in(card, "succeeded")
        expect(card.locator("img")).to_have_count(2)
        expect(card.locator("img").first).to_have_js_property("naturalWidth", 128)
        expect(card).to_contain_text(PROMPT)
        expect(card.locator(".state")).to_have_text(
            re.compile(r"^Done ([1-9]\d* ms|[1-9][\d.]* s) after submission$")
        )
        assert card.locator("time").get_attribute("datetime")
