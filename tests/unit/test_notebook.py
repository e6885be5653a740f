"""What notebooks show of jobs and results: HTML, by clients whose jobs are answered in process."""

import base64
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial
from html.parser import HTMLParser
from typing import Any

import pytest

from crossmodal.errors import UnknownWords
from crossmodal.jobs.record import JobResult, JobState, JobStatus, Progress
from crossmodal.kinds.fields import BlobRef
from crossmodal.testing import AsyncFakeClient, FakeClient
from producer import Client, JobHandle, notebook
from producer.live import Line, told

NASTY = "<script>alert(1)</script> & \"quotes'"
PNG = b"\x89PNG"


class Page(HTMLParser):
    """The tags of some HTML with their attributes, and its text."""

    def __init__(self, html: str | None) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        assert html is not None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[bytes]:
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2]) for source in sources]


def shown(value: Any) -> Page:
    return Page(value._repr_html_())


def test_a_job_shows_the_picture_that_it_has_drawn_and_of_what() -> None:
    client = FakeClient()
    job = client.txt2img("a red circle", seed=7, count=2)
    for page in (shown(job), shown(job.result())):
        assert page.pictures() == [client.read(image) for image in job.result().images]
        assert page.text == "a red circle — fake, seed 7a red circle — fake, seed 8"


def test_a_caption_is_shown_under_its_picture() -> None:
    client = FakeClient(describe=lambda *_: ["a circle", "<b>"])
    drawn = client.read(client.txt2img("a red circle").result().images[0])
    page = shown(client.img2txt(drawn, count=2).result())
    assert page.pictures() == [drawn]
    assert page.text == "a circle<b>"
    assert [tag for tag, _ in page.tags if tag == "b"] == []


def test_what_people_wrote_is_no_markup() -> None:
    client = FakeClient()
    job = client.txt2img(NASTY)
    for page in (shown(job), shown(job.result())):
        assert NASTY in page.text
        assert {tag for tag, _ in page.tags} == {"figure", "img", "figcaption"}
        [alt] = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
        assert alt is not None
        assert NASTY in alt
    client.fail_next(UnknownWords(NASTY))
    failed = client.txt2img("x")
    assert shown(failed).text.endswith(f"failed, unknown_words: {NASTY} ")
    assert "script" not in [tag for tag, _ in shown(failed).tags]
    assert NASTY in shown(JobHandle(client, NASTY)).text


def test_a_job_that_has_not_ended_shows_where_it_is() -> None:
    client = FakeClient(held=True)
    job = client.txt2img("a")
    assert shown(job).text == f"{job.id} queued, next "
    job.cancel()
    assert shown(job).text == f"{job.id} canceled "


def test_steps_are_shown_as_a_bar() -> None:
    status = JobStatus(
        id="x", state=JobState.RUNNING, attempt=1, progress=Progress(step=3, of=20, left_s=4)
    )
    page = shown(Line(status))
    assert ("progress", {"value": "3", "max": "20"}) in page.tags
    assert page.text.strip() == "x running, step 3 of 20, about 4 s left"
    assert repr(Line(status)) == "x running, step 3 of 20, about 4 s left"


def test_results_of_many_are_shown_too() -> None:
    client = FakeClient()
    found = {item.index: item for item in client.map_txt2img(["a red circle", ""])}
    assert shown(found[0]).pictures() == [client.read(found[0].images[0])]
    assert shown(found[1]).text.startswith("1: invalid_prompt: ")


def test_a_picture_that_has_gone_leaves_what_is_known_of_it() -> None:
    client = FakeClient()
    job = client.txt2img("a red circle", seed=7)
    client.storage.delete(job.result().images[0].key)
    assert shown(job).text == "a red circle — fake, seed 7"
    assert shown(job).pictures() == []


def test_pictures_are_shown_as_far_as_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient()
    result = client.txt2img("a", count=3).result()
    two = sum(image.size or 0 for image in result.images[:2])
    monkeypatch.setattr(notebook, "MAX_BYTES", two)
    page = shown(result)
    assert len(page.pictures()) == 2
    assert "1 more: results/" in page.text


def test_an_outage_is_shown_and_not_raised() -> None:
    with Client(broker_url="redis://127.0.0.1:1", storage_url="memory:///") as client:
        page = shown(JobHandle(client, "01a20026-8c96-7bba-8e3c-5db14a5fec48"))
    assert "broker_unavailable: Redis at redis://127.0.0.1:1 does not answer" in page.text


def test_who_cannot_be_shown_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MAX_S", 0.05)
    result, release = FakeClient().txt2img("a").result(), threading.Event()

    def read(blob: BlobRef) -> bytes:
        release.wait(60)
        return b""

    begun = time.monotonic()
    assert notebook.result_html(result, read) is None
    assert time.monotonic() - begun < 5
    release.set()


def test_what_a_reader_raises_is_not_raised() -> None:
    result = FakeClient().txt2img("a").result()

    def read(blob: BlobRef) -> bytes:
        raise RuntimeError("broken")

    assert notebook.result_html(result, read) is None


def test_a_result_is_the_same_whoever_shows_it() -> None:
    client = FakeClient()
    job = client.txt2img("a")
    result, plain = job.result(), client.record(job.id).result
    assert result == plain
    assert plain is not None
    assert plain._repr_html_() is None
    assert result.model_dump_json() == plain.model_dump_json()
    assert JobResult.model_validate_json(result.model_dump_json()) == result
    assert repr(result) == repr(plain)
    copied = pickle.loads(pickle.dumps(result))
    assert (copied, copied._repr_html_()) == (result, None)


def test_who_awaits_is_shown_the_same() -> None:
    import asyncio

    client = AsyncFakeClient()

    async def main() -> None:
        job = await client.txt2img("a red circle")
        for page in (shown(job), shown(await job.result(progress=True))):
            assert page.pictures()[0][:4] == PNG

    asyncio.run(main())


def test_who_waits_hears_how_far_it_is() -> None:
    client = FakeClient(held=True)
    job = client.txt2img("a")
    heard: list[JobState] = []

    def tell(status: JobStatus) -> None:
        heard.append(status.state)
        client.work()

    assert client._ended(job.id, 10, tell).state is JobState.SUCCEEDED
    assert heard == [JobState.QUEUED, JobState.SUCCEEDED]


def test_nothing_is_printed_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    assert client.txt2img("a").result(progress=True).images
    with told(False) as tell:
        assert tell is None
    assert capfd.readouterr() == ("", "")


IN_A_TERMINAL = """
import threading

from crossmodal.testing import FakeClient

client = FakeClient(held=True)
job = client.txt2img("a")
threading.Thread(target=lambda: client.work() if input() else None).start()
job.result(progress=True)
"""


def test_in_a_terminal_a_line_says_where_the_job_is() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ) as program:
        os.close(theirs)
        shown = b""
        while b"queued, next" not in shown and (more := read_some(ours)):
            shown += more
        os.write(ours, b"go on\n")
        shown += b"".join(iter(partial(read_some, ours), b""))
        assert program.wait(60) == 0, shown
    os.close(ours)
    assert b"queued, next" in shown
    assert b"succeeded" in shown


def read_some(terminal: int) -> bytes:
    """What a terminal shows next; nothing once its program has ended."""
    try:
        return os.read(terminal, 4_096)
    except OSError:  # as Linux says it
        return b""


def test_text_that_is_no_picture_is_not_embedded() -> None:
    client = FakeClient()
    result = client.txt2img("a").result()
    page = Page(notebook.result_html(result, lambda _: b"<svg onload=alert(1)>"))
    assert page.pictures() == []
