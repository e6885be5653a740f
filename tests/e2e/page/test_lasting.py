"""What a page forgets neither over a reload nor in an outage."""

import re
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.gateway import running_gateway
from tests.page import draw, is_in, opened
from tests.studio import Studio

PAGE = 24


def test_what_was_followed_is_found_again_after_a_reload(page: Page, studio: Studio) -> None:
    page.select_option("#model", "painter")
    card = draw(page, "hills that take long", steps="200")
    is_in(card, "running")
    later = [studio.client.txt2img("a red circle", seed=i) for i in range(PAGE + 6)]
    for job in later:
        job.wait(60)
    page.reload()  # the first page of jobs has not got it any more
    is_in(card, "running")
    expect(card.locator(".state")).to_contain_text(re.compile(r"step \d+ of 200"))
    expect(card.locator("img.preview")).to_be_visible()
    studio.client.cancel(str(card.get_attribute("data-job")))
    is_in(card, "canceled")


def test_a_lost_connection_is_told_and_what_was_missed_is_read(
    browser: Browser, studio: Studio, tmp_path: Path
) -> None:
    with running_gateway(studio.env, tmp_path) as first:
        port = int(first.url.rsplit(":", 1)[1])
        with opened(browser, first) as page:
            page.select_option("#model", "painter")
            card = draw(page, "hills", steps="5")
            first.child.stop(20)
            banner = page.get_by_role("status").filter(has_text="Connection lost")
            expect(banner).to_be_visible()
            missed = studio.client.txt2img("a red circle")
            missed.wait(60)
            studio.client.job(str(card.get_attribute("data-job"))).wait(60)
            page.click("#send")
            expect(page.locator("#form-error")).to_contain_text("The gateway does not answer")
            with running_gateway(studio.env, tmp_path, port=port):
                is_in(card, "succeeded")
                is_in(page.locator(f'article[data-job="{missed.id}"]'), "succeeded")
                expect(banner).to_have_count(0)


def test_jobs_that_were_deleted_elsewhere_are_gone_after_an_outage(
    page: Page, studio: Studio
) -> None:
    card = draw(page, "a red circle")
    is_in(card, "succeeded")
    page.context.set_offline(True)
    page.evaluate("window.stop()")
    studio.gateway.http.delete(f"/v1/jobs/{card.get_attribute('data-job')}").raise_for_status()
    page.context.set_offline(False)
    page.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'))"  # a tab that is looked at again
    )
    expect(card).to_have_count(0)
