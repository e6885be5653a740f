"""What a person sees of a job until it has ended."""

import re

from playwright.sync_api import Page, expect

from tests.page import draw, is_in
from tests.studio import Studio


def long_job(studio: Studio, prompt: str, steps: int) -> str:
    """The id of a job of so many steps, of 0.2 s each."""
    return studio.client.txt2img(prompt, model="painter", steps=steps).id


def test_a_running_job_shows_its_steps_the_seconds_left_and_what_is_drawn(page: Page) -> None:
    page.select_option("#model", "painter")
    card = draw(page, "hills at dawn", steps="200")
    is_in(card, "running")
    expect(card.locator(".state")).to_have_text(
        re.compile(r"^Running, step \d+ of 200, about [\d.]+ (ms|s|min) left$")
    )
    bar = card.get_by_role("progressbar", name="hills at dawn")
    expect(bar).to_have_js_property("max", 200)
    assert 0 < bar.evaluate("bar => bar.position") < 1
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^step \d+ of 200$"))
    expect(card.locator("img.preview")).to_have_js_property("naturalWidth", 64)
    card.get_by_role("button", name="Cancel").click()
    is_in(card, "canceled")
    expect(bar).to_be_hidden()
    expect(card.locator("img.preview")).to_have_count(0)
    expect(card.get_by_role("button", name="Retry")).to_be_visible()


def test_a_job_that_runs_is_followed_in_the_lightbox(page: Page) -> None:
    page.select_option("#model", "painter")
    card = draw(page, "hills at dawn", steps="40")
    is_in(card, "running")
    card.locator(".open").click()
    viewer = page.locator("#viewer")
    expect(viewer.locator("img.preview")).to_be_visible()
    expect(viewer.locator(".state")).to_contain_text("of 40")
    expect(viewer.locator(".state")).to_have_text(re.compile("^Done in "))
    expect(viewer.locator(".enlarged img")).to_have_js_property("naturalWidth", 128)
    expect(viewer.locator(".download")).to_be_visible()


def test_a_job_that_waits_tells_its_place(page: Page, studio: Studio) -> None:
    before = [long_job(studio, f"hills {i}", 40 + i) for i in range(4)]  # none fit in one batch
    page.select_option("#model", "painter")
    first = draw(page, "the first that waits", steps="3")
    second = draw(page, "the second that waits", steps="4")
    for card in (first, second):
        expect(card.locator(".state")).to_have_text(
            re.compile(r"^Queued, (next in line|\d+ ahead of it)")
        )
        card.get_by_role("button", name="Cancel").click()
        is_in(card, "canceled")
    for job in before:
        studio.client.cancel(job)


def test_a_job_whose_model_is_not_there_yet_says_that_it_is_loading(
    page: Page, studio: Studio
) -> None:
    page.select_option("#model", "turbo")
    expect(page.locator("#model option:checked")).to_have_text("turbo (loading)")
    expect(page.locator("#fields")).to_have_js_property("inert", False)
    expect(page.locator("#field-temperature")).to_be_visible()  # as all models of its kind have it
    card = draw(page, "hills")
    expect(card.locator(".state")).to_contain_text("loading turbo")
    (studio.slow / "go").touch()
    is_in(card, "succeeded")
    expect(page.locator("#model option:checked")).to_have_text("turbo")


OVERTAKEN = """async () => {
    const { Cluster } = await import("/page/cluster.js");
    const cluster = new Cluster();
    const asked = [];
    const { fetch } = window;
    window.fetch = () => new Promise((resolve) => asked.push(resolve));
    for (const seen of [1, 2]) cluster.hear({ queues: [], workers: [{ seen, models: [] }] });
    window.fetch = fetch;
    const answer = (name) => new Response(JSON.stringify({ data: [{ name }] }));
    const [old, later] = [answer("old"), answer("new")];
    const changed = new Promise((resolve) => cluster.addEventListener("change", resolve));
    asked[1](later);
    await changed;
    asked[0](old);
    while (!old.bodyUsed) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return cluster.models.map(({ name }) => name);
}"""


def test_an_answer_that_comes_after_a_later_one_is_passed_over(page: Page) -> None:
    assert page.evaluate(OVERTAKEN) == ["new"]
