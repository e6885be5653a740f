"""The registry of models, as announced by workers; an announcement outlives its worker."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from crossmodal.errors import InvalidParams, ModelBroken, ModelNotFound, quoted
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.names import models_key, paused_key, vocabularies_key
from crossmodal.jobs.record import Failure, ModelInfo, ModelState, ServedKind, WorkerInfo
from crossmodal.jobs.vocabulary import LISTED_WORDS, MAX_WORDS, Vocabulary
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.schema import build_by, class_by, properties_of
from crossmodal.kinds.task import Task, tasks
from crossmodal.settings import Settings
from crossmodal.unknown import check_fields, nearest, shown

FRESH_S = 5.0  # max age of the cached registry


class Models:
    """The announcements of models; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = models_key(settings.key_prefix)
        self._words = vocabularies_key(settings.key_prefix)
        self._paused = paused_key(settings.key_prefix)
        self._workers = Workers(settings)
        self._known: KnownModels | None = None

    @call
    def announce(self, models: Sequence[ModelInfo]) -> Steps[None]:
        """Announce models; an announcement is kept for the retention of records.

        A model that is not loaded keeps the measurements announced when its version was loaded.
        """
        if models:
            (seconds, _), texts = yield [
                redis.time(),
                redis.hmget(self._key, [model.name for model in models]),
            ]
            told = {
                model.name: _noted(model.completed(_parsed(text)), seconds)
                for model, text in zip(models, texts, strict=True)
            }
            yield redis.hset(self._key, mapping=told)
            if words := {m.name: _words_of(m) for m in models if m.vocabulary is not None}:
                yield redis.hset(self._words, mapping=words)

    @call
    def forget(self, name: str) -> Steps[bool]:
        """Remove a model from the registry; False if it was not there."""
        was_known, _ = yield [redis.hdel(self._key, name), redis.hdel(self._words, name)]
        return bool(was_known)

    @call
    def with_words(self, model: ModelInfo) -> Steps[ModelInfo]:
        """Return a model with its full vocabulary, up to `MAX_WORDS`."""
        if model.vocabulary is None or model.vocabulary.is_whole:
            return model
        text = yield redis.hget(self._words, model.name)
        found = _vocabulary_in(text, model.version)
        return model if found is None else model.model_copy(update={"vocabulary": found})

    @call
    def known(self, *, max_age_s: float = FRESH_S) -> Steps["KnownModels"]:
        """Return all models and the workers that have them, at most `max_age_s` old."""
        if self._known is None or time.monotonic() - self._known.read_at > max_age_s:
            self._known = yield from self._read()
        return self._known

    @call
    def _read(self) -> Steps["KnownModels"]:
        workers = yield from self._workers.recent()
        (seconds, _), told, paused = yield [
            redis.time(),
            redis.hgetall(self._key),
            redis.hgetall(self._paused),
        ]
        models = [model for text in told.values() if (model := _parsed(text)) is not None]
        kept = [m for m in models if seconds - m.noted_at <= self._settings.retention_s]
        return KnownModels(sorted(kept, key=lambda model: model.name), workers, paused)


class _Words(BaseModel):
    """The vocabulary of a version of a model."""

    version: str
    vocabulary: Vocabulary


def _words_of(model: ModelInfo) -> str:
    known = model.vocabulary and model.vocabulary.shortened(MAX_WORDS)
    words = _Words.model_construct(version=model.version, vocabulary=known)
    return words.model_dump_json()


def _vocabulary_in(text: str | None, version: str) -> Vocabulary | None:
    """Return the vocabulary of a model version; None if absent or written by another release."""
    try:
        found = None if text is None else _Words.model_validate_json(text)
    except ValidationError:
        return None
    return found.vocabulary if found is not None and found.version == version else None


def _noted(model: ModelInfo, at: float) -> str:
    """Return the entry of a model, with few words: every read of the registry reads all entries."""
    words = None if model.vocabulary is None else model.vocabulary.shortened(LISTED_WORDS)
    return model.model_copy(update={"vocabulary": words, "noted_at": at}).model_dump_json()


def _parsed(text: str | None) -> ModelInfo | None:
    """Return the model of an entry; None if absent or written by another release."""
    try:
        return None if text is None else ModelInfo.model_validate_json(text)
    except ValidationError:
        return None


class KnownModels(Mapping[str, ModelInfo]):
    """A snapshot of all models by name."""

    def __init__(
        self,
        models: Sequence[ModelInfo] = (),
        workers: Sequence[WorkerInfo] = (),
        paused: Iterable[str] = (),
    ) -> None:
        self._models = {model.name: model for model in models}
        self.workers = workers
        self._paused = frozenset(paused)
        self._aliases = {alias: model for model in reversed(models) for alias in model.aliases}
        self._classes: dict[tuple[str, str], type[ItemParams]] = {}
        self.read_at = time.monotonic()

    def __getitem__(self, name: str) -> ModelInfo:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def default(self, kind: Kind) -> ModelInfo | None:
        """Return the default model of a kind: the one last announced as such."""
        found = [m for m in self._models.values() if kind.name in m.default_for]
        return max(found, key=lambda model: model.noted_at, default=None)

    def any_named(self, name: str) -> ModelInfo:
        """Return the model with that name or alias, of any kind. Raises `ModelNotFound`."""
        model = self._models.get(name) or self._aliases.get(name)
        if model is None:
            near = nearest(name, [*self._models, *self._aliases])
            remedy = (
                f"did you mean {near!r}?" if near else f"known models: {', '.join(self) or 'none'}"
            )
            raise ModelNotFound(f"no model is called {quoted(name[:100])}: {remedy}", "model")
        return model

    def serves(self, kind: Kind, name: str) -> bool:
        """Return whether a model of a kind has that name or alias."""
        return self._found(kind, name) is not None

    def _found(self, kind: Kind, name: str) -> ModelInfo | None:
        model = self._models.get(name) or self._aliases.get(name)
        return model if model is not None and kind.name in model.kinds else None

    def named(self, kind: Kind, name: str) -> ModelInfo:
        """Return the model of a kind with that name or alias. Raises `ModelNotFound`."""
        model = self._found(kind, name)
        if model is not None:
            return model
        names = [m.name for m in self._models.values() if kind.name in m.kinds]
        near = nearest(name, [*names, *self._aliases])
        remedy = (
            f"did you mean {near!r}?" if near else f"known models: {', '.join(names) or 'none'}"
        )
        raise ModelNotFound(
            f"no model of {kind.name} is called {quoted(name[:100])}: {remedy}", "model"
        )

    def of(self, kind: Kind, raw: Mapping[str, Any]) -> ModelInfo | None:
        """Return the model that params name, else the default one, if known.

        Raises `InvalidParams` or `ModelNotFound`.
        """
        name = raw.get("model")
        if name is None:
            return self.default(kind)
        if not isinstance(name, str):
            raise InvalidParams(f"model is {shown(name)}: give its name")
        return self.named(kind, name)

    def queue(self, task: Task, raw: Mapping[str, Any]) -> Queue:
        """Return the queue for these params. Raises `InvalidParams` or `ModelNotFound`."""
        model = None if raw.get("model") is None else self.of(task.kind, raw)
        if model is None or model is self.default(task.kind):
            return Queue(task)
        return Queue(task, model.name)

    def build(
        self, kind: Kind, raw: Mapping[str, Any], where: str = "", beside: Iterable[str] = ()
    ) -> ItemParams:
        """Validate params by their model's schema; replace an alias by the model's name.

        Errors give the location `where`, and suggest also the fields allowed `beside` the params.
        Raises `InvalidParams`, `ModelNotFound` or `ModelBroken`.
        """
        model = self.of(kind, raw)
        if model is None:
            check_fields(raw, dict.fromkeys([*kind.fields, *beside]), where or kind.name)
            return kind.build(raw)
        self._check_alive(model)
        raw = raw if raw.get("model") is None else {**raw, "model": model.name}
        if model.kinds[kind.name].params is None:  # no worker has loaded it yet
            return kind.build(raw)
        return build_by(self._class(kind, model), raw, where or kind.name, beside)

    def _class(self, kind: Kind, model: ModelInfo) -> type[ItemParams]:
        found = self._classes.get((kind.name, model.name))
        if found is None:
            found = class_by(kind, model.kinds[kind.name].params)
            self._classes[kind.name, model.name] = found
        return found

    def check_fields(self, kind: Kind, raw: Mapping[str, Any], where: str) -> None:
        """Raise `InvalidParams` for params, located at `where`, that their model lacks."""
        model = self.of(kind, raw)
        schema = None if model is None else model.kinds[kind.name].params
        if model is None or schema is not None:
            check_fields(raw, {**kind.fields, **properties_of(schema)}, where)

    def _check_alive(self, model: ModelInfo) -> None:
        """Raise `ModelBroken` if a worker failed to load the model and no other has it."""
        if self.state(model.name) is ModelState.BROKEN and (why := self.failure(model.name)):
            raise ModelBroken(f"the model {model.name} cannot be loaded: {why.message}")

    def holders(self, name: str) -> list[WorkerInfo]:
        """Return the workers that have a model loaded."""
        return [worker for worker in self.workers if name in worker.models]

    def failure(self, name: str) -> Failure | None:
        """Return why no worker can load a model; None if one has it or none has tried."""
        if self.holders(name):
            return None
        return next((w.failures[name] for w in self.workers if name in w.failures), None)

    def state(self, name: str) -> ModelState:
        """Return the state of a model."""
        if self.holders(name):
            return ModelState.LOADED
        if any(name in worker.loading for worker in self.workers):
            return ModelState.LOADING
        if any(name in worker.unloaded for worker in self.workers):
            return ModelState.UNLOADED
        if self.failure(name) is not None:
            return ModelState.BROKEN
        return ModelState.ABSENT

    def waits_for(self, queue: str) -> str | None:
        """Return what a queue's jobs wait for besides their turn, such as a worker; else None."""
        if queue in self._paused:
            return f"{queue} to be resumed"
        if any(queue in worker.queues for worker in self.workers):
            return None
        task, name = Queue.parse(queue)
        if name is None and (default := self.default(task.kind)) is not None:
            name = default.name
        if any(name in worker.loading for worker in self.workers):
            return f"loading {name}"
        if any(name in worker.unloaded for worker in self.workers):
            return f"a device for {name}"
        return "a worker"

    def item_s(self, queue: Queue) -> float | None:
        """Return the seconds that one item took in the model's warm-up, if known."""
        served = self._served(queue)
        return None if served is None else served.run_s

    def max_batch(self, queue: Queue) -> int | None:
        """Return the max batch of a queue's model, if known."""
        served = self._served(queue)
        return None if served is None else served.max_batch

    def _served(self, queue: Queue) -> ServedKind | None:
        kind = queue.task.kind
        model = self.default(kind) if queue.model is None else self._models.get(queue.model)
        return None if model is None else model.kinds.get(kind.name)

    def is_unusual(self, name: str) -> bool:
        """Return whether the queue is named after a default model, so that no new jobs enter it."""
        task, model = Queue.parse(name)
        default = self.default(task.kind)
        return default is not None and model == default.name

    @property
    def queues(self) -> list[Queue]:
        """Return the queues of the default models and of models by name."""
        own = [
            Queue(task, model.name)
            for model in self._models.values()
            for task in tasks()
            if task.kind.name in model.kinds
        ]
        return [*map(Queue, tasks()), *own]
