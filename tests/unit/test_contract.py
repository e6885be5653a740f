"""A model behind the contract, as the lanes of a host run it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from crossmodal.errors import InferenceFailed, InvalidModel, UnknownWords
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import (
    UNWATCHED,
    Batch,
    Caption,
    Model,
    Outcome,
    Picture,
    Preview,
    Request,
)
from worker.devices import cores
from worker.host.device import new_lanes
from worker.host.lanes import Lane, Quiet, core_lanes
from worker.host.pipeline import Described, Drawn, HostRequest, ModelPipeline

WHITE = np.full((2, 3, 3), 255, np.uint8)


class Params(Txt2ImgParams):
    """With a parameter of the model's own."""

    steps: int = Field(default=2, ge=1, le=50)


class Drawing(Model):
    """Draws what its function makes of each request, and notes the batches."""

    kind = "txt2img"
    Params = Params
    shared = ("steps",)

    def __init__(self, draw: Callable[[Request], Any] = lambda request: WHITE) -> None:
        self._draw = draw
        self.batches: list[list[Request]] = []

    def load(self, folder: Path, device: str) -> None: ...

    def run(self, batch: Batch) -> Sequence[Outcome]:
        self.batches.append(list(batch))
        batch.step(1, 1)
        return [self._draw(request) for request in batch]


class Describing(Model):
    """Says how large a picture is."""

    kind = "img2txt"

    def load(self, folder: Path, device: str) -> None: ...

    def run(self, batch: Batch) -> Sequence[Outcome]:
        return [[Caption(str(np.asarray(request.image).shape), -1.0)] for request in batch]


class Steps:
    """Notes all steps."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        self.taken.append((done, of))


def ask(count: int = 1, seed: int | None = 7, **more: Any) -> HostRequest:
    return HostRequest(Params(prompt="a circle", count=count, seed=seed, **more))


def only(model: Model, request: HostRequest | None = None) -> Any:
    [outcome] = ModelPipeline(model).run([request or ask()])
    return outcome


def test_a_model_has_the_params_of_its_kind_unless_it_says_others() -> None:
    assert Describing.Params is Img2TxtParams
    assert Drawing.Params is Params


def test_each_picture_of_a_job_is_a_request_with_its_own_seed() -> None:
    model = Drawing(lambda request: np.full((1, 1, 3), request.seed % 256, np.uint8))
    drawn = only(model, ask(count=3, seed=2**32 - 1))
    assert drawn.images[:, 0, 0, 0].tolist() == [255, 0, 1]
    assert [request.seed for request in model.batches[0]] == [2**32 - 1, 0, 1]


def test_a_batch_is_no_larger_than_the_model_allows_and_its_steps_go_on() -> None:
    model, steps = Drawing(), Steps()
    model.max_batch = 2
    pipeline = ModelPipeline(model)
    drawn, other = pipeline.run([ask(count=4), ask()], steps)
    assert isinstance(drawn, Drawn)
    assert isinstance(other, Drawn)
    assert (len(drawn.images), len(other.images)) == (4, 1)
    assert [len(batch) for batch in model.batches] == [2, 2, 1]
    assert steps.taken == [(1, 3), (2, 3), (3, 3)]
    assert pipeline.max_batch == 2


def test_of_a_model_that_takes_no_steps_each_run_is_one() -> None:
    model, steps = Describing(), Steps()
    model.max_batch = 1
    asked = HostRequest(Img2TxtParams(image=BlobRef(key="k")), np.zeros((5, 6, 3), np.uint8))
    ModelPipeline(model).run([asked] * 2, steps)
    assert steps.taken == [(1, 2), (2, 2)]


def test_what_a_model_cannot_mix_is_its_batches_key() -> None:
    pipeline = ModelPipeline(Drawing())
    assert pipeline.key(ask(steps=3)) == pipeline.key(ask(count=4, seed=1, steps=3))
    assert pipeline.key(ask(steps=3)) != pipeline.key(ask(steps=4))


@pytest.mark.parametrize(
    ("made", "pixels"),
    [
        (WHITE, 255),
        (Picture(WHITE), 255),
        (np.full((2, 3, 3), 0.5, np.float32), 128),
        (np.full((2, 3, 3), 1.004), 255),
    ],
)
def test_pictures_are_taken_as_bytes_and_as_floats(made: Any, pixels: int) -> None:
    drawn = only(Drawing(lambda request: made))
    assert drawn.images.dtype == np.uint8
    assert (drawn.images.shape, drawn.images[0, 0, 0, 0]) == ((1, 2, 3, 3), pixels)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (np.full((2, 3, 3), np.nan), "NaN"),
        (np.full((2, 3, 3), 200.0), "floats go from 200 to 200, not from 0 to 1"),
        (np.full((2, 3, 3), -0.7), "floats go from -0.7"),
        (np.zeros((2, 3), np.uint8), r"the shape \(2, 3\), not \(height, width, 3\)"),
        (np.zeros((2, 3, 3), np.int64), "int64, not uint8"),
        (None, "the shape"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_what_is_no_picture_fails_alone_and_says_why(made: Any, says: str) -> None:
    model = Drawing(lambda request: made if request.seed == 1 else WHITE)
    bad, good = ModelPipeline(model).run([ask(seed=1), ask(seed=2)])
    assert isinstance(good, Drawn)
    assert isinstance(bad, InferenceFailed)
    with pytest.raises(InferenceFailed, match=says):
        raise bad


def test_an_error_of_ours_keeps_its_code_and_ends_its_whole_job() -> None:
    model = Drawing(lambda request: UnknownWords("none") if request.seed == 8 else WHITE)
    assert isinstance(only(model, ask(count=3)), UnknownWords)


def test_too_few_outcomes_are_an_error_of_the_model() -> None:
    class Short(Drawing):
        def run(self, batch: Batch) -> Sequence[Outcome]:
            return []

    with pytest.raises(RuntimeError, match="0 outcomes for 1 requests"):
        only(Short())


def test_pictures_are_described_as_they_are() -> None:
    params = Img2TxtParams(image=BlobRef(key="k"), count=3)
    described = only(Describing(), HostRequest(params, np.zeros((5, 6, 3), np.uint8)))
    assert isinstance(described, Described)
    assert [caption.text for caption in described.captions] == ["(5, 6, 3)"]


def test_a_model_that_fails_on_its_example_is_not_ready() -> None:
    class Broken(Drawing):
        def example(self) -> Mapping[str, Any]:
            return {"prompt": "a circle", "count": 2}

    Describing().run(Batch([Request(None, image=WHITE)]))
    ModelPipeline(Describing()).warmup()
    with pytest.raises(InvalidModel, match=r"its own example: .*by zero"):
        ModelPipeline(Broken(lambda request: ZeroDivisionError("by zero"))).warmup()


def test_a_batch_outside_a_host_takes_its_steps_in_silence() -> None:
    batch = Batch([Request(None)], UNWATCHED)
    batch.step(1, 2)
    assert (len(batch), batch[0], list(batch)) == (1, Request(None), [Request(None)])


@pytest.mark.parametrize(("is_concurrent", "lanes"), [(True, 2), (False, 1)])
def test_what_several_threads_cannot_run_has_one_place_on_a_gpu(
    is_concurrent: bool, lanes: int
) -> None:
    model = Drawing()
    model.is_concurrent = is_concurrent
    pipelines = {Task("txt2img"): ModelPipeline(model)}
    made = new_lanes(pipelines, torch.device("cuda"), Quiet(), "cuda:0")
    assert len({id(lane) for lane in made}) == lanes
    assert made[0].width == lanes
    for lane in made:
        lane.close()


@pytest.mark.parametrize(("is_concurrent", "kinds_of_work"), [(True, 2), (False, 1)])
def test_where_none_can_be_forked_threads_run_what_can_be_run_by_several(
    is_concurrent: bool, kinds_of_work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    model = Drawing()
    model.is_concurrent = is_concurrent
    made = core_lanes({Task("txt2img"): ModelPipeline(model)}, Quiet(), "cpu")
    assert {type(lane) for lane in made} == {Lane}
    assert len({id(lane) for lane in made}) == kinds_of_work
    assert (made[0].width == 1) is (not is_concurrent or cores() == 1)
    for lane in made:
        lane.close()


def test_a_caption_that_is_a_str_is_an_error_that_says_what_to_return() -> None:
    class Plain(Describing):
        def run(self, batch: Batch) -> Sequence[Outcome]:
            return [["a dog"] for _ in batch]  # type: ignore[list-item]

    request = HostRequest(Img2TxtParams(image=BlobRef(key="k")), np.zeros((5, 6, 3), np.uint8))
    failure = only(Plain(), request)
    assert isinstance(failure, InferenceFailed)
    assert "return Caption(text, log_probability)" in str(failure)


def test_a_caption_whose_probability_is_no_number_is_an_error() -> None:
    class Odd(Describing):
        def run(self, batch: Batch) -> Sequence[Outcome]:
            return [[Caption("a", float("-inf"))] for _ in batch]

    request = HostRequest(Img2TxtParams(image=BlobRef(key="k")), np.zeros((5, 6, 3), np.uint8))
    assert isinstance(only(Odd(), request), InferenceFailed)
