"""The lightbox: a picture as large as fits, and all that is known of its job."""

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.page import draw, is_in
from tests.studio import Studio


def opened(page: Page, **fields: str) -> tuple[Locator, Locator]:
    """The card of a job, and the lightbox with its first picture."""
    page.select_option("#model", "painter")
    card = draw(page, "hills at dusk", **fields)
    is_in(card, "succeeded")
    card.locator(".tile").first.click()
    viewer = page.get_by_role("dialog", name="hills at dusk")
    expect(viewer.locator("img")).to_be_visible()
    return card, viewer


def fact(viewer: Locator, name: str) -> Locator:
    return viewer.locator(f"dt:text-is('{name}') + dd")


def test_it_tells_params_seed_and_sizes(page: Page) -> None:
    _, viewer = opened(page, seed="41", count="2", width="256", steps="3")
    expect(fact(viewer, "Model")).to_have_text("painter")
    expect(fact(viewer, "Steps")).to_have_text("3")
    expect(fact(viewer, "Style")).to_have_text("dawn")
    expect(fact(viewer, "Grain")).to_have_text("no")
    expect(fact(viewer, "Size")).to_have_text("256 × 96 pixels")
    expect(fact(viewer, "Seed")).to_contain_text("41")
    page.keyboard.press("ArrowRight")
    expect(fact(viewer, "Seed")).to_contain_text("42")  # of the second picture


def test_prompt_and_seed_are_copied(page: Page) -> None:
    _, viewer = opened(page, seed="41")
    viewer.get_by_role("button", name="Copy the seed").click()
    assert page.evaluate("navigator.clipboard.readText()") == "41"
    copy = viewer.get_by_role("button", name="Copy the text")
    copy.click()
    expect(viewer.get_by_role("button", name="Copied").first).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "hills at dusk"


def test_the_picture_is_downloaded_as_it_was_stored(
    page: Page, studio: Studio, tmp_path: Path
) -> None:
    card, viewer = opened(page)
    with page.expect_download() as found:
        viewer.get_by_role("link", name="Download").click()
    job = str(card.get_attribute("data-job"))
    assert found.value.suggested_filename == f"{job}-0.png"
    found.value.save_as(tmp_path / "picture.png")
    result = studio.client.record(job).result
    assert result is not None
    assert (tmp_path / "picture.png").read_bytes() == studio.client.read(result.images[0])


def test_arrows_lead_through_pictures_and_jobs(page: Page) -> None:
    older = draw(page, "a red circle")
    is_in(older, "succeeded")
    _, viewer = opened(page, count="2")
    first = viewer.locator("img").get_attribute("alt")
    assert first == "hills at dusk (1 of 2)"
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("img")).to_have_attribute("alt", "hills at dusk (2 of 2)")
    page.keyboard.press("ArrowRight")
    shown = page.locator("#viewer")
    expect(shown.locator("h2")).to_have_text("a red circle")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(shown.locator("img")).to_have_attribute("alt", "hills at dusk (1 of 2)")
    shown.get_by_role("button", name="Next").click()
    expect(shown.locator("img")).to_have_attribute("alt", "hills at dusk (2 of 2)")
    expect(shown.get_by_role("button", name="Next")).to_be_focused()


def test_the_focus_stays_inside_and_is_given_back(page: Page) -> None:
    card, viewer = opened(page)
    for _ in range(40):  # more than there are things to focus
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body"  # the browser's own controls
            " || document.querySelector('#viewer').contains(document.activeElement)"
        )
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(card.locator(".tile").first).to_be_focused()


def test_what_can_be_done_with_a_job_can_be_done_here(page: Page) -> None:
    older = draw(page, "a red circle")
    is_in(older, "succeeded")
    card, viewer = opened(page, count="2")
    page.keyboard.press("ArrowRight")
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        viewer.get_by_role("button", name="Describe this").click()
    assert answer.value.json()["params"]["image"]["key"].endswith("/1.png")
    viewer.get_by_role("button", name="Delete").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(card).to_have_count(0)
    shown = page.locator("#viewer")
    expect(shown).to_have_attribute("data-job", str(older.get_attribute("data-job")))
    page.keyboard.press("Escape")
    expect(page.locator("#jobs")).to_be_focused()  # the card that it was opened from is gone


def test_a_job_that_has_failed_tells_why(page: Page) -> None:
    card = draw(page, "zorg frob")
    is_in(card, "failed")
    card.locator(".open").click()
    viewer = page.get_by_role("dialog", name="zorg frob")
    expect(viewer.locator(".failed")).to_contain_text(
        "`crossmodal models show NAME`, or GET /v1/models/NAME, lists its words"
    )
    expect(fact(viewer, "Error")).to_have_text("unknown_words")
    expect(viewer.locator(".download")).to_be_hidden()
