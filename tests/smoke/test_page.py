"""The page once, in a real browser; the rest of it is in tests/e2e."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser import running_browser
from tests.conftest import RunningStack
from tests.gateway import running_gateway
from tests.page import PROMPT, draw, is_in, opened

FOLDER = Path(__file__).parents[2] / "producer" / "gateway" / "page"
NARROW = """<style>{css}</style><article class="card" style="width: 14rem"><div class="text">
<footer><time>59 min. ago</time><span class="tools"><button class="icon">1</button>
<button class="icon">2</button><button class="icon">3</button><button class="icon">4</button></span>
</footer></div></article>"""


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
            re.compile(r"^Done in ([1-9]\d* ms|[1-9][\d.]* s)$")
        )
        assert card.locator("time").get_attribute("datetime")


def test_the_foot_of_a_narrow_card_is_one_line() -> None:
    css = "".join((FOLDER / name).read_text() for name in ("base.css", "gallery.css"))
    with running_browser() as browser:
        page = browser.new_page()
        page.set_content(NARROW.replace("{css}", css))
        boxes = [page.locator(name).bounding_box() for name in ("time", ".tools", ".text")]
        time, tools, text = (box for box in boxes if box)
        assert time["y"] < tools["y"] + tools["height"] / 2 < time["y"] + time["height"]
        assert time["x"] + time["width"] <= tools["x"]
        assert tools["x"] + tools["width"] < text["x"] + text["width"]
        assert tools["height"] < 40
