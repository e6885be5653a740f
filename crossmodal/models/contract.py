"""The interface of a model: a class that serves one kind from a folder. Needs no torch.

    class Stripes(Model):
        kind = "txt2img"

        def load(self, folder, device): ...
        def run(self, batch):
            return [draw(request.params.prompt, request.seed) for request in batch]

A process calls a model with one batch at a time, unless the model `is_concurrent`.
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
    """Raised to end a batch once all its requests are canceled.

    A `BaseException`, so that no model handles it as an error of its own.
    """


class Request(NamedTuple):
    """One picture to draw, or one to caption.

    `params` is an instance of the model's `Params`; `image` is uint8 RGB (H, W, 3) if the kind
    takes a picture. A job of several pictures makes one request for each, with its own `seed`; a
    job of several captions makes one request, with `count` in its params.
    """

    params: Any
    seed: int = 0
    image: Pixels | None = None


class Picture(NamedTuple):
    """A drawn picture, uint8 RGB (H, W, 3), and the words of the prompt that the model ignored.

    `suggestions` maps some `unknown_words` to known words of similar spelling; `warnings` are
    sentences for the user, as about a truncated prompt. A warning about the unknown words is
    added later.
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
"""The outcome of a request: a picture, captions (likeliest first), or an error."""


Preview = Callable[[], Sequence[Any]]
"""Returns a small picture for each request of a batch, as far as drawn: uint8 RGB (H, W, 3), or
floats from 0 to 1, or None if there is none yet."""


class Link(Protocol):
    """The receiver of a batch's progress."""

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        """Report a step. Raises `Canceled`."""
        ...


class Unwatched:
    """The link of a batch outside a model host: does nothing."""

    def step(self, done: int, of: int, preview: Preview | None = None) -> None: ...


UNWATCHED = Unwatched()


class Batch(Sequence[Request]):
    """Requests that run together, equal in all params that the model names in `shared`."""

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
        """Report that `done` of `of` steps are done. Call it at least every few seconds.

        Reports the jobs' progress, shows that the device does not hang, lets more urgent batches
        run first, and raises `Canceled` once all requests are canceled. `preview` is called only
        if a client watches, within this call, and at most once a second; its errors do not fail
        the batch.
        """
        if preview is None:
            self._link.step(done, of)
        else:
            self._link.step(done, of, preview)


class Model(ABC):
    """A model that serves one kind from a folder."""

    kind: ClassVar[str]
    """The name of the kind, as `txt2img`."""
    Params: type[ItemParams]
    """The class of params: the kind's own by default, or a subclass. `load` may set one that
    depends on the folder."""
    shared: Sequence[str] = ()
    """Names of params that must be equal in all requests of a batch."""
    max_batch: int | None = None
    """The max pictures in a batch; None for the settings' limit."""
    repeatable: Literal["exact", "close"] = "close"
    """Whether the same seed and params give the same bytes, alone and in any batch."""
    is_concurrent: bool = False
    """Whether several threads may call it at once, which uses a GPU best."""
    vocabulary: Vocabulary | None = None
    """The words that it knows, if they are limited; `load` may set it."""
    side: int | None = None
    """Input pictures are cropped to squares of this side, in pixels; None: left as they are."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "kind") and not hasattr(cls, "Params"):
            cls.Params = kind_named(cls.kind).params

    def batch_key(self, params: Any) -> Hashable:
        """Return the key that all requests of a batch have in common: their `shared` params."""
        return tuple(getattr(params, name) for name in self.shared)

    @abstractmethod
    def load(self, folder: Path, device: str) -> None:
        """Load the model from the folder to a torch device: `cpu`, or `cuda:0`."""

    @abstractmethod
    def run(self, batch: Batch) -> Sequence[Outcome]:
        """Run a batch; return the outcome of each request, in order."""

    def example(self) -> Mapping[str, Any]:
        """Return params of a request that always succeeds, without its picture: for the warm-up."""
        return {"prompt": "a picture"} if "prompt" in self.Params.model_fields else {}
