"""A loaded model as the lanes of a host use it: requests in, outcomes out.

Always a batch: outcomes have the length and order of the requests; a failure is one item's.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import (
    CrossmodalError,
    InferenceFailed,
    InvalidBundle,
    InvalidModel,
    InvalidSetting,
    described,
)
from crossmodal.jobs.record import GeneratedCaption, ServedKind
from crossmodal.kinds.base import ItemParams, Kind, build
from crossmodal.kinds.fields import MAX_SEED, BlobRef
from crossmodal.kinds.registry import kind_named
from crossmodal.kinds.schema import schema_of
from crossmodal.models.catalog import CODE
from crossmodal.models.contract import (
    UNWATCHED,
    Batch,
    Caption,
    Link,
    Model,
    Picture,
    Preview,
    Request,
)
from crossmodal.text.sentences import passed_over
from crossmodal.unknown import check_fields
from worker.host.pixels import pixels_of
from worker.host.previews import PlacedLink
from worker.host.warmup import QUICK_S, Stopwatch, Timed

WARMUP_SIDE = 64  # side in pixels of a warm-up picture, if the model has no side


class HostRequest(NamedTuple):
    """The request of a job, or of an item of a bulk message; `image` is uint8 RGB (H, W, 3)."""

    params: ItemParams
    image: NDArray[np.uint8] | None = None


class Drawn(NamedTuple):
    """Pictures uint8 RGB (count, H, W, 3), and the words of the prompt that were not understood.

    The `warnings` name these in a sentence, and have all else to be reported.
    """

    images: NDArray[np.uint8]
    unknown_words: tuple[str, ...]
    suggestions: dict[str, str]
    warnings: tuple[str, ...] = ()


class Described(NamedTuple):
    """Captions, the most probable first."""

    captions: tuple[GeneratedCaption, ...]


Outcome = Drawn | Described | CrossmodalError


class Pipeline(ABC):
    """The interface of what a lane runs."""

    is_concurrent = True
    """Whether several threads may run it at once."""
    repeatable: Literal["exact", "close"] | None = None
    """Whether the same seed gives the same bytes."""
    max_batch: int | None = None
    """Max weight of a batch, whatever the settings allow; a single request may exceed it."""

    def params(self, kind: Kind, raw: Mapping[str, Any]) -> ItemParams:
        """Return a request's checked params, as the model takes them. Raises `InvalidParams`."""
        return kind.build(raw)

    def restored(self, kind: Kind, fields: Mapping[str, Any]) -> ItemParams:
        """Rebuild params from fields that were checked in another process."""
        return kind.params.model_construct(**fields)

    def weight(self, request: HostRequest) -> int:
        """Return how many requests this one counts for in a batch."""
        return 1

    def key(self, request: HostRequest) -> Hashable:
        """Return the key that all requests of a batch must share."""
        return None

    @abstractmethod
    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        """Return one outcome per request, in order. Raises what a model raises, and `Canceled`."""


class ModelPipeline(Pipeline):
    """The pipeline of a model: each picture is a request to it, and its output is checked."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.kind = kind_named(model.kind)
        self._draws = self.kind.output == "images"
        self.is_concurrent, self.max_batch = model.is_concurrent, model.max_batch
        self.repeatable = model.repeatable

    def load(self, folder: Path, device: str) -> None:
        """Load the model to a torch device. Raises `InvalidModel` and related errors."""
        with _as_invalid(f"the model in {folder} cannot be loaded"):
            self.model.load(folder, device)

    def warmup(self) -> Timed:
        """Run the model's example and time it. Raises `InvalidModel` if that fails."""
        with _as_invalid("the model fails on its own example"):
            timed = self._timed_run()
            return timed if timed.run_s > QUICK_S else self._timed_run()

    def _timed_run(self) -> Timed:
        stopwatch = Stopwatch()
        [outcome] = self.run([self.example()], stopwatch)
        if isinstance(outcome, CrossmodalError):
            raise outcome
        return stopwatch.timed()

    def example(self) -> HostRequest:
        """Return the model's own example, with a gray picture if it takes one."""
        fields = dict(self.model.example())
        if self.kind.picture is None:
            return HostRequest(self.model.Params.model_validate(fields))
        side = self.model.side or WARMUP_SIDE
        fields[self.kind.picture] = BlobRef(key="warmup")
        params = self.model.Params.model_validate(fields)
        return HostRequest(params, np.full((side, side, 3), 128, np.uint8))

    def served(self, timed: Timed) -> ServedKind:
        """Return what is published of the model, with the times of a run."""
        return ServedKind(
            params=schema_of(self.model.Params),
            max_batch=self.model.max_batch,
            repeatable=self.model.repeatable,
            run_s=round(timed.run_s, 4),
            step_s=None if timed.step_s is None else round(timed.step_s, 4),
        )

    def params(self, kind: Kind, raw: Mapping[str, Any]) -> ItemParams:
        check_fields(raw, self.model.Params.model_fields)
        return build(self.model.Params, raw)

    def restored(self, kind: Kind, fields: Mapping[str, Any]) -> ItemParams:
        return self.model.Params.model_construct(**fields)

    def weight(self, request: HostRequest) -> int:
        return request.params.count if self._draws else 1

    def key(self, request: HostRequest) -> Hashable:
        return self.model.batch_key(request.params)

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        requests = [part for request in batch for part in self._parts(request)]
        places = [at for at, request in enumerate(batch) for _ in range(self.weight(request))]
        made = iter(self._run_all(requests, places, link))
        return [self._whole([next(made) for _ in range(self.weight(r))]) for r in batch]

    def _parts(self, request: HostRequest) -> Iterator[Request]:
        first = getattr(request.params, "seed", None) or 0
        for i in range(self.weight(request)):
            yield Request(request.params, (first + i) % (MAX_SEED + 1), request.image)

    def _run_all(self, requests: Sequence[Request], places: Sequence[int], link: Link) -> list[Any]:
        size = self.max_batch or len(requests)
        starts = range(0, len(requests), size)
        made: list[Any] = []
        for number, start in enumerate(starts):
            some = requests[start : start + size]
            run = RunLink(PlacedLink(link, places[start : start + size]), number, len(starts))
            outcomes = self.model.run(Batch(some, run))
            if len(outcomes) != len(some):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(some)} requests")
            made += outcomes
            if not run.has_stepped:  # a run without steps counts as one
                link.step(number + 1, len(starts))
        return made

    def _whole(self, made: Sequence[Any]) -> Outcome:
        """Return the outcome of a job's request, given the outcomes of its parts."""
        error = next((one for one in made if isinstance(one, Exception)), None)
        if error is not None:
            return error if isinstance(error, CrossmodalError) else failed(error)
        try:
            return _drawn(made) if self._draws else _described(made[0])
        except (TypeError, ValueError) as e:
            return InferenceFailed(
                f"the output of the model for {self.model.kind} cannot be used: {e}"
            )


@contextmanager
def _as_invalid(what: str) -> Iterator[None]:
    """Turn any exception of third-party code into `InvalidModel`."""
    try:
        yield
    except (InvalidBundle, InvalidModel, InvalidSetting):
        raise
    except Exception as e:
        raise InvalidModel(f"{what}: {described(e)}{_where(e)}") from e


def _where(error: Exception) -> str:
    """Return the last line of a `model.py` that led to an error, as text."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(CODE)]
    return f" ({CODE}, line {frames[-1].lineno})" if frames else ""


class RunLink:
    """The steps of one of several runs of a batch, counted over all of them."""

    def __init__(self, link: Link, number: int, runs: int) -> None:
        self._link, self._number, self._runs = link, number, runs
        self.has_stepped = False

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        self.has_stepped = True
        self._link.step(self._number * of + done, self._runs * of, preview)


def failed(error: Exception) -> InferenceFailed:
    """Return an exception that a model raised or returned as an outcome."""
    return InferenceFailed(f"the model failed on this request: {type(error).__name__}: {error}")


def _drawn(made: Sequence[Any]) -> Drawn:
    pictures = [one if isinstance(one, Picture) else Picture(one) for one in made]
    first = pictures[0]
    said = passed_over(first.unknown_words, first.suggestions)
    warnings = dict.fromkeys([said, *(text for one in pictures for text in one.warnings)])
    return Drawn(
        np.stack([pixels_of(one.pixels) for one in pictures]),
        first.unknown_words,
        dict(first.suggestions),
        tuple(filter(None, warnings)),
    )


def _caption(made: Any) -> Caption:
    if isinstance(made, str):
        raise TypeError("a caption is a str: return Caption(text, log_probability)")
    return made if isinstance(made, Caption) else Caption(*made)


def _described(made: Any) -> Described:
    captions = [_caption(one) for one in made]
    return Described(
        tuple(
            GeneratedCaption(text=one.text, log_probability=one.log_probability) for one in captions
        )
    )
