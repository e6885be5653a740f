"""What can be done with a job that is there already."""

from playwright.sync_api import Locator, Page, expect

from tests.page import draw, is_in, submitted
from tests.studio import Studio


def drawn(page: Page, prompt: str = "hills", **fields: str) -> Locator:
    """The card of a job that has succeeded."""
    page.select_option("#model", "painter")
    card = draw(page, prompt, **fields)
    is_in(card, "succeeded")
    return card


def act(page: Page, card: Locator, does: str) -> Locator:
    """The card of the job that a button of another has made."""
    made = submitted(page, lambda: card.get_by_role("button", name=does, exact=True).click())
    is_in(made, "succeeded")
    return made


def params(studio: Studio, card: Locator) -> dict[str, object]:
    return studio.client.record(str(card.get_attribute("data-job"))).params


def test_again_draws_the_same_picture(page: Page, studio: Studio) -> None:
    card = drawn(page, width="64")
    again = act(page, card, "Again")
    assert params(studio, again) == params(studio, card)
    pictures = [
        studio.client.record(str(c.get_attribute("data-job"))).result for c in (card, again)
    ]
    first, second = (studio.client.read(one.images[0]) for one in pictures if one)
    assert first == second


def test_again_with_another_seed_draws_another_picture(page: Page, studio: Studio) -> None:
    card = drawn(page, seed="7", width="64")
    other = act(page, card, "Again with another seed")
    was, now = params(studio, card), params(studio, other)
    assert (was.pop("seed"), was) == (7, {name: now[name] for name in was})
    assert now["seed"] != 7


def test_describe_this_captions_what_was_drawn(page: Page, studio: Studio) -> None:
    card = drawn(page)
    captioned = act(page, card, "Describe this")
    expect(captioned).to_have_attribute("data-task", "img2txt")
    result = studio.client.record(str(card.get_attribute("data-job"))).result
    assert result is not None
    image = params(studio, captioned)["image"]
    assert isinstance(image, dict)
    assert image["key"] == result.images[0].key
    expect(captioned.locator("img")).to_have_js_property("naturalWidth", 128)


def test_a_caption_is_made_again_of_the_same_picture(page: Page, studio: Studio) -> None:
    captioned = act(page, drawn(page), "Describe this")
    again = act(page, captioned, "Again")
    assert params(studio, again)["image"] == params(studio, captioned)["image"]


def test_what_is_deleted_is_asked_about_and_gone_for_good(page: Page, studio: Studio) -> None:
    card = drawn(page)
    job = str(card.get_attribute("data-job"))
    delete = card.get_by_role("button", name="Delete", exact=True)
    delete.click()
    question = page.get_by_role("alertdialog", name="Delete this job?")
    expect(question.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(question).to_be_hidden()
    expect(delete).to_be_focused()
    delete.click()
    question.get_by_role("button", name="Delete").click()
    expect(card).to_have_count(0)
    assert studio.gateway.http.get(f"/v1/jobs/{job}").status_code == 404
    assert page.evaluate("document.activeElement.matches('#gallery article')")


def test_an_action_that_fails_says_so_on_its_card(page: Page) -> None:
    card = drawn(page)
    page.route("**/v1/jobs", lambda route: route.abort())
    card.get_by_role("button", name="Again", exact=True).click()
    expect(card.get_by_role("alert")).to_contain_text("The gateway does not answer")
