"""The page as a person uses it: a real browser, a real gateway, a real worker that is killed."""

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Browser, Page, Route, expect

from crossmodal.jobs.models import Models
from crossmodal.jobs.record import ModelInfo, ServedKind
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from tests.conftest import IN_HAND, RunningStack
from tests.gateway import Gateway, in_thread, running_gateway
from tests.page import PROMPT, draw, is_in, opened, show, submitted
from tests.waiting import until
from tests.workers import suspended, tree_of


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("page")
    with running_gateway(stack.env, folder, "--flower", "http://127.0.0.1:5555") as gateway:
        yield gateway


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """The page, open; whatever its console calls an error fails the test."""
    with opened(browser, gateway) as page:
        yield page


@contextmanager
def paused_host(stack: RunningStack) -> Iterator[None]:
    """A model host that does not answer for a while."""
    with ExitStack() as paused:
        for process in tree_of(stack.model_host):
            paused.enter_context(suspended(process))
        yield


def test_a_picture_that_could_not_be_read_is_read_again(page: Page) -> None:
    page.route("**/v1/blobs/**", lambda route: route.abort())
    card = draw(page)
    is_in(card, "succeeded")
    expect(card.locator(".tile .error")).to_contain_text("The gateway does not answer")
    page.unroute("**/v1/blobs/**")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 128)
    expect(card.locator(".tile")).to_have_attribute("aria-label", f"Enlarge: {PROMPT}")


def test_a_job_shown_beside_the_filter_is_looked_at_when_its_news_were_missed(
    page: Page, stack: RunningStack
) -> None:
    page.check("#filter [value=failed]")
    with paused_host(stack):
        card = draw(page)
        is_in(card, "running")
        page.evaluate(SHOW_OR_HIDE, "hidden")  # it listens to nothing any more
        job_id = str(card.get_attribute("data-job"))
    with Client(stack.settings) as client:
        client.job(job_id).wait(60)
    is_in(card, "running")
    page.evaluate(SHOW_OR_HIDE, "visible")
    is_in(card, "succeeded")


def test_news_that_come_before_the_answer_to_a_submission_are_not_lost(
    page: Page, stack: RunningStack
) -> None:
    page.check("#filter [value=failed]")
    answers: list[tuple[Route, APIResponse]] = []
    page.route("**/v1/jobs", lambda route: answers.append((route, route.fetch())), times=1)
    running = page.locator("#queues [data-queue=txt2img] [data-field=running]")
    expect(running).to_have_text("0")
    with Client(stack.settings) as client, paused_host(stack):
        page.fill("#field-prompt", PROMPT)
        page.click("#send")
        expect(running).to_have_text("1")  # which is told after what happens to jobs
        [(route, answer)] = answers
        route.fulfill(response=answer)
        card = page.locator(f'#gallery article[data-job="{answer.json()["id"]}"]')
        is_in(card, "running")
        assert client.record(answer.json()["id"]).attempt == 1  # later ones are other news


def test_a_worker_that_is_killed_in_mid_job_is_seen_and_survived(
    page: Page, stack: RunningStack
) -> None:
    with paused_host(stack):
        card = draw(page)
        is_in(card, "running")
        stack.celery.kill()
        expect(card).to_contain_text(re.compile("attempt 2", re.I))
    is_in(card, "succeeded")
    expect(card.locator("img")).to_be_visible()


def test_a_job_that_waits_tells_its_place_and_can_be_canceled(
    page: Page, stack: RunningStack
) -> None:
    with paused_host(stack), Client(stack.settings) as client:
        before = [client.txt2img(PROMPT, seed=i) for i in range(IN_HAND + 3)]
        until(lambda: client.queue(client.record(before[0].id).task).depth >= 1)
        card = draw(page)
        is_in(card, "queued")
        expect(card).to_contain_text(re.compile(r"\d+ ahead|next in line"))
        card.locator(".cancel").click()
        is_in(card, "canceled")
    for job in before:
        job.result(60)
    card.locator(".retry").click()
    again = page.locator("#gallery article").first
    is_in(again, "succeeded")
    expect(again).to_contain_text(PROMPT)


def test_jobs_that_wait_tell_their_places_also_when_the_page_was_opened_later(
    page: Page, stack: RunningStack
) -> None:
    with Client(stack.settings) as client:
        client.txt2img(PROMPT).result(60)  # so that it is known what a job takes
    with paused_host(stack), Client(stack.settings) as client:
        jobs = [client.txt2img(PROMPT, seed=i) for i in range(IN_HAND + 7)]
        until(lambda: client.status(jobs[-1].id).position == 6, 60, "that workers are busy")
        page.reload()
        places = page.locator("#gallery article[data-state=queued] .state")
        expect(places).to_have_text(
            [re.compile(rf"^Queued, {n} ahead of it, about ") for n in range(6, 0, -1)]
            + [re.compile("^Queued, next in line, about ")]
        )
        jobs[-7].cancel()
        expect(places.first).to_contain_text("5 ahead of it")
    for job in jobs:
        job.wait(60)


COVERED = """async (count) => {
    const { layOut } = await import("/page/mosaic.js");
    const grid = document.createElement("div");
    grid.className = "pictures";
    grid.style.width = "300px";
    for (let i = 0; i < count; i++) {
        const tile = document.createElement("button");
        tile.className = "tile";
        grid.append(tile);
    }
    layOut(grid);
    document.body.append(grid);
    const area = (node) => {
        const { width, height } = node.getBoundingClientRect();
        return { size: width * height, ratio: width / height };
    };
    const tiles = [...grid.children].map(area);
    const shown = { covered: tiles.reduce((sum, { size }) => sum + size, 0) / area(grid).size,
                    ratios: tiles.map(({ ratio }) => ratio) };
    grid.remove();
    return shown;
}"""


def test_pictures_fill_their_place_whatever_their_number(page: Page) -> None:
    for count in range(1, 17):
        shown = page.evaluate(COVERED, count)
        assert 0.96 < shown["covered"] <= 1.001, count
        assert all(0.97 < ratio < 1.03 for ratio in shown["ratios"]), (count, shown["ratios"])


def test_a_picture_is_downloaded_under_a_name_that_says_its_format(
    page: Page, stack: RunningStack
) -> None:
    with Client(stack.settings) as client:
        job = client.txt2img(PROMPT, format="webp")
        job.wait(60)
    page.click(f'#gallery article[data-job="{job.id}"] .tile')
    expect(page.locator(".download")).to_have_attribute("download", f"{job.id}-0.webp")


def test_a_failed_job_shows_cause_and_remedy(page: Page) -> None:
    card = draw(page, "zorg frob")
    is_in(card, "failed")
    expect(card).to_contain_text("unknown_words")
    expect(card).to_contain_text(
        "`crossmodal models show NAME`, or GET /v1/models/NAME, lists its words"
    )
    page.check("#filter [value=failed]")
    expect(page.locator("#gallery article:not([data-state=failed])")).to_have_count(0)


def test_what_a_model_passed_over_is_said_with_the_picture(page: Page) -> None:
    card = draw(page, "a lrage red circle, zorgish")
    is_in(card, "succeeded")
    said = (
        "the model does not know the words 'lrage' (did you mean 'large'?) and 'zorgish': "
        "they were ignored"
    )
    expect(card.locator(".warnings li")).to_have_text(said)
    card.locator(".tile").click()
    expect(page.locator("#viewer .warnings li")).to_have_text(said)


def test_the_words_of_a_model_are_listed_and_hinted_at_beside_the_form(page: Page) -> None:
    note = re.compile(r"It knows \d+ words, which are listed under Models\.$")
    expect(page.locator("#model-note")).to_have_text(note)
    scenes = show(page, "models").locator("[data-model=scenes]")
    expect(scenes.locator(".words")).to_be_hidden()
    scenes.locator("summary").click()
    expect(scenes.locator(".words")).to_contain_text("circle, disc")
    expect(scenes.locator(".words")).to_contain_text("background, ")


def test_of_a_long_list_of_words_all_are_shown_once_it_is_opened(
    browser: Browser, settings: Settings
) -> None:
    words = Vocabulary.of(["cat"], ["cat", *(f"word{i}" for i in range(3_000))])
    kinds = {"txt2img": ServedKind(params=schema_of(Txt2ImgParams))}
    told = ModelInfo(name="coco", version="1", format="bundle", kinds=kinds, vocabulary=words)
    with Client(settings) as client, in_thread(settings, needs_keys=False) as url:
        client.run(Models(settings).announce([told.model_copy(update={"load_s": 1.0})]))
        page = browser.new_page()
        page.goto(url)
        expect(page.locator("#model-note")).to_have_text(
            "It can draw cat. It knows 3,001 words, which are listed under Models."
        )
        coco = show(page, "models").locator("[data-model=coco]")
        coco.get_by_text("3,001 words that it knows").click()
        expect(coco.locator(".words")).to_contain_text("word2999")
        expect(coco.locator(".words")).not_to_contain_text("more")
        page.close()


def test_a_prompt_that_is_refused_says_why_beside_the_form(page: Page) -> None:
    page.fill("#field-prompt", " ")
    page.click("#send")
    expect(page.locator("#form-error")).to_contain_text("describe the picture")


@pytest.fixture
def picture(gateway: Gateway, tmp_path: Path) -> Path:
    wanted = {"task": "txt2img", "prompt": PROMPT, "seed": 7}
    job = gateway.http.post("/v1/jobs", json=wanted, headers={"Prefer": "wait=60"}).json()
    path = tmp_path / "circle.png"
    path.write_bytes(gateway.http.get(job["result"]["images"][0]["url"]).content)
    return path


SHOW_OR_HIDE = """(state) => {
    const get = () => state;
    Object.defineProperty(document, "visibilityState", {get, configurable: true});
    Object.defineProperty(document, "hidden", {get: () => state === "hidden", configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""

GIVE_FILE = """([selector, data, kind]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const given = new DataTransfer();
    given.items.add(new File([bytes], "circle.png", {type: "image/png"}));
    const init = {bubbles: true, cancelable: true};
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {...init, clipboardData: given})
        : new DragEvent("drop", {...init, dataTransfer: given});
    document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_a_picture_gets_captions(page: Page, picture: Path, how: str) -> None:
    def give() -> None:
        if how == "choose":
            page.check("#kinds [value=img2txt]")
            page.set_input_files("#picture", picture)
        else:
            data = base64.b64encode(picture.read_bytes()).decode()
            page.evaluate(GIVE_FILE, ["#composer" if how == "drop" else "body", data, how])

    card = submitted(page, give)
    is_in(card, "succeeded")
    expect(card).to_contain_text("red circle")
    expect(card.locator("img").first).to_be_visible()


def test_all_works_by_keyboard(page: Page) -> None:
    page.focus("#field-prompt")
    page.keyboard.type(PROMPT)
    card = submitted(page, lambda: page.keyboard.press("Enter"))
    is_in(card, "succeeded")
    expect(card.locator("img").first).to_be_visible()
    card.locator("button.tile").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer")).to_contain_text(PROMPT)
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_queues_and_workers_are_shown_as_they_change(page: Page, stack: RunningStack) -> None:
    expect(page.locator("#workers [data-worker]")).to_have_count(1)
    depth = page.locator("#queues [data-queue=txt2img] [data-field=depth]")
    expect(depth).to_have_text("0")
    with paused_host(stack), Client(stack.settings) as client:
        jobs = [client.txt2img(PROMPT) for _ in range(IN_HAND + 4)]
        expect(depth).not_to_have_text("0")
    for job in jobs:
        job.wait(60)
    expect(depth).to_have_text("0")


def test_the_page_goes_on_when_its_gateway_was_restarted(
    browser: Browser, stack: RunningStack, tmp_path: Path
) -> None:
    with running_gateway(stack.env, tmp_path) as first:
        port = int(first.url.rsplit(":", 1)[1])
        with opened(browser, first) as page:
            first.child.stop(20)
            expect(page.locator("#connection")).to_contain_text(re.compile("lost", re.I))
            with running_gateway(stack.env, tmp_path, port=port), Client(stack.settings) as client:
                job = client.txt2img(PROMPT, seed=7)
                card = page.locator(f'#gallery article[data-job="{job.id}"]')
                is_in(card, "succeeded")


def test_a_key_is_asked_for_where_one_is_needed(
    browser: Browser, stack: RunningStack, tmp_path: Path
) -> None:
    with Client(stack.settings) as client:
        _, token = client.keys.create("page")
    with running_gateway(stack.env, tmp_path, "--keys") as gateway:
        page = browser.new_page()
        page.goto(gateway.url)
        page.fill("#key", token)
        page.keyboard.press("Enter")
        card = draw(page)
        is_in(card, "succeeded")
        expect(card.locator("img")).to_have_js_property("naturalWidth", 128)
        page.close()


def test_flower_is_linked(page: Page) -> None:
    expect(page.get_by_role("link", name="Flower")).to_have_attribute(
        "href", "http://127.0.0.1:5555"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1_280])
def test_it_fits_the_screen(
    browser: Browser, gateway: Gateway, picture: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    with opened(browser, gateway, width, scheme) as page:
        expect(page.locator("#gallery img").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)


def test_it_loads_less_than_150_kb(browser: Browser, gateway: Gateway) -> None:
    page = browser.new_page()
    sizes: list[int] = []
    page.on("response", lambda reply: sizes.append(len(reply.body())) if _own(reply.url) else None)
    page.goto(gateway.url)
    page.wait_for_load_state("load")
    expect(page.locator("#field-prompt")).to_be_visible()
    assert 10_000 < sum(sizes) < 150_000
    page.close()


def _own(url: str) -> bool:
    return "/page/" in url or url.endswith("/")
