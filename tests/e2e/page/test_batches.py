"""Files of requests, beside jobs."""

import json

from playwright.sync_api import Page, expect

from tests.studio import Studio


def sent(studio: Studio, count: int, **body: object) -> str:
    line = {"url": "/v1/txt2img", "body": {"prompt": "a red circle", **body}}
    lines = "".join(json.dumps(line | {"custom_id": str(i)}) + "\n" for i in range(count))
    headers = {"Content-Type": "application/jsonl"}
    found = studio.gateway.http.post("/v1/batches", content=lines, headers=headers)
    assert found.status_code == 202, found.text
    return str(found.json()["id"])


def test_a_batch_is_seen_until_its_output_can_be_downloaded(page: Page, studio: Studio) -> None:
    batch = sent(studio, 5)
    row = page.locator(f'[data-name="batch_{batch}"]')
    expect(row.locator("h3")).to_have_text("Pictures, 5 requests")
    expect(row.locator(".state")).to_have_text("Done: 5 of 5")
    with page.expect_download() as found:
        row.get_by_role("button", name="Output").click()
    assert found.value.suggested_filename == f"batch_{batch}.jsonl"
    lines = found.value.path().read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in lines} == {"0", "1", "2", "3", "4"}


def test_a_batch_tells_how_far_it_is_and_can_be_canceled(page: Page, studio: Studio) -> None:
    batch = sent(studio, 40, model="painter", steps=10)
    row = page.locator(f'[data-name="batch_{batch}"]')
    expect(row.get_by_role("progressbar", name="Pictures, 40 requests")).to_have_js_property(
        "max", 40
    )
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_have_attribute("data-state", "canceled")
    expect(row.get_by_role("progressbar")).to_be_hidden()


def test_batches_can_be_looked_at_alone(page: Page, studio: Studio) -> None:
    batches = [sent(studio, 1) for _ in range(5)]
    studio.client.txt2img("a red circle")
    rows = page.locator("#batch-list > li")
    expect(rows).to_have_count(3)  # the latest, beside jobs
    page.get_by_role("radio", name="Batches").check()
    expect(page.locator("#gallery")).to_be_hidden()
    for batch in batches:
        expect(page.locator(f'[data-name="batch_{batch}"] .state')).to_have_text("Done: 1 of 1")
    page.get_by_role("radio", name="Pictures").check()
    expect(page.locator("#batches")).to_be_hidden()
    expect(page.locator("#gallery")).to_be_visible()
