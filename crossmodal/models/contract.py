"""What a model is here: a class that serves one kind from a folder. Needs no torch.

    class Stripes(Model):
        kind = "txt2img"

        def load(self, folder, device): ...
        def run(self, batch):
            return [draw(request.params.prompt, request.seed) for request in batch]

A process calls a model with one batch after another, unless it says that it `is_concurrent`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.registry import kind_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
else:
    Pixels = Any


class Canceled(BaseException):
    """Nobody wants any request of the batch any more. No `Exception`, so that none is taken for
    one of the model's own errors."""


class Request(NamedTuple):
    """One picture to draw, or one to describe.

    `params` are an instance of the model's `Params`, `image` is uint8 RGB (H, W, 3) where the kind
    takes a picture. A job that asks for several pictures is as many requests, each with a `seed`
    of its own; one that asks for several captions is one, whose params say the `count`.
    """

    params: Any
    seed: int = 0
    image: Pixels | None = None


class Picture(NamedTuple):
    """What was drawn, uint8 RGB (H, W, 3), and what of the prompt was not understood.

    `suggestions` has, for some of those words, known ones of nearly the same spelling; `warnings`
    are sentences for whoever has asked, as of a prompt that was cut. One about the words that were
    not understood is added to them.
    """

    pixels: Pixels
    unknown_words: tuple[str, ...] = ()
    suggestions: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class Caption(NamedTuple):
    """A text, and the natural logarithm of its probability under the model."""

    text: str
    log_probability: float


Outcome = Picture | Pixels | Sequence[Caption] | Exception
"""What became of a request: a picture, or captions with the likeliest first, or an error."""


Preview = Callable[[], Sequence[Any]]
"""Makes a small picture for each request of a batch, as far as it is drawn: uint8 RGB (H, W, 3), or
floats from 0 to 1, or None where there is nothing to be seen yet."""


class Link(Protocol):
    """Who waits for a batch."""

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        """Take note of a step. Raises `Canceled`."""
        ...


class Unwatched:
    """Nobody: of batches outside a model host."""

    def step(self, done: int, of: int, preview: Preview | None = None) -> None: ...


UNWATCHED = Unwatched()


class Batch(Sequence[Request]):
    """Requests that run together; they are equal in all params that the model names `shared`."""

    def __init__(self, requests: Sequence[Request], link: Link = UNWATCHED) -> None:
        self._requests = requests
        self._link = link

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, at: Any) -> Any:
        return self._requests[at]

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        """Say that `done` of `of` steps are done. To be called at least every few seconds.

        It tells how far the jobs are, shows that the device does not hang, gives way to batches
        that are more urgent, and ends this one by `Canceled` once nobody wants it any more.
        `preview` is called only where somebody looks, here and at most once a second; what it
        raises is no error of the batch.
        """
        if preview is None:
            self._link.step(done, of)
        else:
            self._link.step(done, of, preview)


class Model(ABC):
    """What serves one kind from a folder."""

    kind: ClassVar[str]
    """The name of the kind, as `txt2img`."""
    Params: type[ItemParams]
    """The schema of params: the kind's own, where it is not said, or a subclass. `load` may set
    one that depends on the folder."""
    shared: Sequence[str] = ()
    """The params that are equal in all requests of a batch."""
    max_batch: int | None = None
    """The most pictures in a batch; None for as many as the settings allow."""
    repeatable: Literal["exact", "close"] = "close"
    """Whether the same seed and params give the same bytes, alone and in any batch."""
    is_concurrent: bool = False
    """Whether several threads may call it at once, as a GPU is used best."""
    vocabulary: Vocabulary | None = None
    """The words that it knows, where these are only some; `load` may set it."""
    side: int | None = None
    """Pictures come cut to squares of this side, in pixels; None: as they were sent."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "kind") and not hasattr(cls, "Params"):
            cls.Params = kind_named(cls.kind).params

    def batch_key(self, params: Any) -> Hashable:
        """What is equal for all requests of a batch: the params that are `shared`."""
        return tuple(getattr(params, name) for name in self.shared)

    @abstractmethod
    def load(self, folder: Path, device: str) -> None:
        """Load what is in the folder to a device as torch calls it: `cpu`, or `cuda:0`."""

    @abstractmethod
    def run(self, batch: Batch) -> Sequence[Outcome]:
        """What became of each request, in their order."""

    def example(self) -> Mapping[str, Any]:
        """Params of a request that certainly succeeds, without its picture: for the warm-up."""
        return {"prompt": "a picture"} if "prompt" in self.Params.model_fields else {}
