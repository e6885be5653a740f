"""Previews of what a model draws: for whom they are made, how often, and to whom they go."""

import asyncio
import io
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import Batch, Model, Outcome, Preview
from worker.host.batcher import Batcher
from worker.host.isolation import run_isolated
from worker.host.lanes import ForkedLane, Lane, Quiet
from worker.host.pipeline import HostRequest, ModelPipeline
from worker.host.previews import SIDE, jpeg_of
from worker.host.watch import CANCEL, NOBODY, Audience, Stepper, Watch, Watched

WHITE = np.full((4, 6, 3), 255, np.uint8)


class Drawing(Model):
    """Takes steps until it may end; its previews are of the color that a seed says."""

    kind = "txt2img"

    def __init__(self, steps: int = 1, max_batch: int | None = None) -> None:
        self.steps, self.max_batch = steps, max_batch

    def load(self, folder: Path, device: str) -> None: ...

    def run(self, batch: Batch) -> Sequence[Outcome]:
        if any(request.params.prompt == "bad" for request in batch) and len(batch) > 1:
            raise ZeroDivisionError
        for step in range(self.steps):
            time.sleep(0.001)  # endless ones would flood the loop
            batch.step(step + 1, self.steps, lambda: [shade(r.seed) for r in batch])
        return [WHITE] * len(batch)


def shade(seed: int) -> Any:
    return np.full((8, 12, 3), seed, np.uint8)


def ask(seed: int, prompt: str = "a", count: int = 1) -> HostRequest:
    return HostRequest(Txt2ImgParams(prompt=prompt, seed=seed, count=count))


def shown(data: bytes) -> tuple[tuple[int, int], int]:
    """Width and height of a JPEG file, and the level of its first pixel."""
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return picture.size, int(np.asarray(picture)[0, 0, 0])


class Shown:
    """A link that looks at every preview: the levels of its pictures, by their requests."""

    def __init__(self) -> None:
        self.levels: list[list[int | None]] = []

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        if preview is not None:
            self.levels.append([None if one is None else int(one[0, 0, 0]) for one in preview()])


def test_a_preview_is_small_and_keeps_its_shape() -> None:
    tall = np.zeros((2_048, 512, 3), np.float32)
    assert shown(jpeg_of(tall))[0] == (SIDE // 4, SIDE)
    assert shown(jpeg_of(np.full((8, 12, 3), 0.5)))[0] == (12, 8)


def test_the_first_picture_of_a_job_that_runs_is_shown() -> None:
    link = Shown()
    ModelPipeline(Drawing(max_batch=2)).run([ask(10, count=3), ask(50)], link)
    assert link.levels == [[10], [12, 50]]


def test_previews_go_to_their_requests_also_where_these_run_one_by_one() -> None:
    link = Shown()
    run_isolated(ModelPipeline(Drawing()), [ask(10), ask(20, "bad"), ask(30)], link)
    assert link.levels == [[10], [None, 20], [None, None, 30]]


class Steps:
    """What a stepper tells, and how often a preview was made."""

    def __init__(self, watched: Watched, pictures: Callable[[], Any] = lambda: [WHITE] * 3) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.made = 0
        self._pictures = pictures
        self.stepper = Stepper(
            lambda: False, lambda *step: self.told.append(step), lambda: None, lambda: watched
        )

    def take(self, count: int) -> None:
        for step in range(count):
            self.stepper.step(step, count, self._make)

    def _make(self) -> Any:
        self.made += 1
        return self._pictures()


@pytest.fixture
def quick_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is told, and looks who waits."""
    monkeypatch.setattr("worker.host.watch.TELL_S", 0.0)
    monkeypatch.setattr("worker.host.watch.CHECK_S", 0.0)


@pytest.mark.usefixtures("quick_to_tell")
def test_nothing_is_made_while_nobody_looks() -> None:
    steps = Steps(NOBODY)
    steps.take(100)
    assert (steps.made, steps.told) == (0, [(i, 100) for i in range(100)])


@pytest.mark.usefixtures("quick_to_tell")
def test_previews_are_made_at_most_once_a_second_and_of_what_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.host.watch.PREVIEW_S", 3_600.0)
    steps = Steps(frozenset({0, 2}), lambda: [WHITE, WHITE, None])
    steps.take(100)
    assert (steps.made, len(steps.told)) == (1, 100)
    assert [set(more[0]) for _, _, *more in steps.told if more] == [{0}]


@pytest.mark.usefixtures("quick_to_tell")
@pytest.mark.parametrize("made", [lambda: 1 / 0, lambda: None, lambda: [np.zeros((2, 2))]])
def test_what_cannot_be_shown_is_skipped(
    made: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "worker.host.watch")
    steps = Steps(frozenset({0}), made)
    steps.take(2)
    assert steps.told == [(0, 2), (1, 2)]
    assert "a preview failed" in caplog.text


def test_a_process_is_told_who_looks_once_a_change() -> None:
    told: list[str | Watched] = []
    watch = Watch()
    watch.show(frozenset({1}))
    watch.joined(told.append)
    watch.show(frozenset({1}))
    watch.show(NOBODY)
    watch.joined(None)
    watch.show(frozenset({2}))
    assert (told, watch.watched()) == ([frozenset({1}), NOBODY], frozenset({2}))
    watch.cancel()
    watch.joined(told.append)
    assert told[-1] == CANCEL


@pytest.mark.usefixtures("quick_to_tell")
@pytest.mark.parametrize("kind", [Lane, ForkedLane])
def test_previews_of_a_batch_go_to_those_alone_who_look(
    kind: type[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.host.watch.PREVIEW_S", 0.0)
    asyncio.run(asyncio.wait_for(_looking(kind), 60))


async def _looking(kind: type[Lane]) -> None:
    pipelines = {Task("txt2img"): ModelPipeline(Drawing(steps=30_000))}
    lanes = kind(pipelines, 1), kind(pipelines, 1)
    batcher = Batcher(pipelines, lanes, Quiet(), 3, 3, max_wait_s=60)  # all three go together
    audience, seen, plain = Audience(), asyncio.Queue[bytes](), asyncio.Event()
    missed: list[bytes] = []

    def look(done: int, of: int, preview: bytes | None = None, /) -> None:
        if preview is not None:
            seen.put_nowait(preview)
        elif not audience.is_there:
            plain.set()

    def look_away(done: int, of: int, preview: bytes | None = None, /) -> None:
        missed.extend([preview] if preview else [])

    task = Task("txt2img")
    runs = [
        asyncio.create_task(batcher.run(task, [ask(1), ask(70)], on_step=look_away)),
        asyncio.create_task(batcher.run(task, [ask(200)], on_step=look, audience=audience)),
    ]
    for _ in range(2):  # also one who comes again
        await plain.wait()
        audience.turn(True)
        assert shown(await seen.get()) == ((12, 8), 200)
        audience.turn(False)
        plain.clear()
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    batcher.close()
    assert missed == []
