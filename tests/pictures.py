"""Takes the screenshots of the page for the README and the docs.

python -m tests.pictures
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, expect

from tests.browser import running_browser
from tests.page import opened, show
from tests.studio import Studio, running_studio

FOLDER = Path(__file__).parents[1] / "docs" / "images"
WAIT = {"Prefer": "wait=60"}
JOBS = (
    {
        "prompt": "hills at noon",
        "model": "painter",
        "style": "noon",
        "count": 4,
        "seed": 3,
        "width": 256,
        "height": 256,
    },
    {"prompt": "zorg frob"},
    {"prompt": "a large red circle on a white background", "count": 2, "seed": 7},
    {
        "prompt": "hills before sunrise, mist in the valley",
        "model": "painter",
        "seed": 21,
        "width": 512,
        "height": 512,
    },
    {"prompt": "a yellow star on a black background", "count": 4, "seed": 6},
)
RUNNING = {
    "task": "txt2img",
    "prompt": "hills after sunset",
    "model": "painter",
    "style": "dusk",
    "seed": 8,
    "steps": 100,
    "width": 512,
    "height": 512,
}
LINE = '{"url": "/v1/txt2img", "body": {"prompt": "a blue square", "model": "painter", "steps": 9}}'


def main() -> None:
    """Run some jobs, and take screenshots of the page."""
    with TemporaryDirectory() as folder, running_studio(Path(folder)) as studio:
        fill(studio)
        with running_browser() as browser:
            with photographed(browser, studio, "page") as page:
                page.select_option("#model", "painter")
            with photographed(browser, studio, "page-dark", scheme="dark") as page:
                page.locator("article", has_text="hills before sunrise").locator(".tile").click()
                expect(page.locator("#viewer img")).to_be_visible()
            with photographed(browser, studio, "page-models") as page:
                show(page, "models")
            with photographed(browser, studio, "page-phone", width=360) as page:
                page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
                page.locator("#jobs").evaluate("jobs => jobs.scrollIntoView()")


def fill(studio: Studio) -> None:
    http = studio.gateway.http
    for job in JOBS:
        done = http.post("/v1/jobs", json={"task": "txt2img", **job}, headers=WAIT).json()
    image = {"key": done["result"]["images"][0]["key"]}
    http.post("/v1/jobs", json={"task": "img2txt", "image": image}, headers=WAIT)
    lines = f"{LINE}\n" * 60
    http.post("/v1/batches", content=lines, headers={"Content-Type": "application/jsonl"})


@contextmanager
def photographed(
    browser: Browser, studio: Studio, name: str, width: int = 1_280, scheme: str = "light"
) -> Iterator[Page]:
    """Open the page while a job runs; save a screenshot at the end of the block."""
    job = studio.gateway.http.post("/v1/jobs", json=RUNNING).json()
    with opened(browser, studio.gateway, width, scheme) as page:
        expect(page.locator(f'article[data-job="{job["id"]}"] .preview')).to_be_visible()
        expect(page.locator("#gallery .tile:not(:empty)").nth(3)).to_be_visible()
        yield page
        page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
    studio.gateway.http.post(f"/v1/jobs/{job['id']}/cancel")
    studio.gateway.http.delete(f"/v1/jobs/{job['id']}")


if __name__ == "__main__":
    main()
