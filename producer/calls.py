"""What a client can be asked, as calls: written once, run by the client and by its twin.

What they say of arguments and errors is what the clients' `help` shows. A job is returned by
its id, of which each client makes a handle of its own.
"""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import JsonValue

from crossmodal.errors import BrokerUnavailable, InvalidParams, ModelBroken, WrongState
from crossmodal.jobs.access import ApiKeys
from crossmodal.jobs.calls import Blocking, Steps, call
from crossmodal.jobs.message import broker_priority, message_of
from crossmodal.jobs.names import RESULTS, check_batch_id, new_job_id
from crossmodal.jobs.origin import NOBODY, Origin
from crossmodal.jobs.params import Params, fingerprint, fix_seed, recorded, task_of
from crossmodal.jobs.record import ItemResult, JobState
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.images import ImageFormat
from crossmodal.kinds.registry import kind_named, kind_of
from crossmodal.unknown import shown
from crossmodal.vision.media import media_type
from producer.bulk import Batch, Request
from producer.checks import check_keep, check_priority, check_seconds, check_text
from producer.handle import Handle
from producer.items import ANY_BLOB, checked_items, picture_items, prompt_items
from producer.operating import Operating
from producer.pictures import Picture, bytes_of

STALE_S = 1.0  # older news of models are asked for again before something is refused


class ClientCalls(Operating):
    """All calls of a client; it holds no connection to Redis."""

    # -- submitting ---------------------------------------------------------------------

    @call
    def txt2img(
        self,
        /,
        prompt: str,
        *,
        model: str | None = None,
        count: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        format: ImageFormat | None = None,
        quality: int | None = None,
        embed_metadata: bool | None = None,
        metadata: JsonValue = None,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        priority: int = 0,
        keep_s: float | None = None,
        **params: Any,
    ) -> Steps[str]:
        """Submit a job that draws `count` pictures of `prompt`; returns without waiting.

        `params` are those that only the `model` has, as `steps` or `width`; what is not given is
        as the model has it by default. `priority` is -1, 0 or 1, and orders what waits; `keep_s` is
        how long the record is kept after the job's end. Raises `InvalidParams`, `ModelNotFound`,
        `ModelBroken`, `QueueFull`, `IdempotencyConflict` or `BrokerUnavailable`.
        """
        given = _given(
            model=model,
            count=count,
            seed=seed,
            temperature=temperature,
            format=format,
            quality=quality,
            embed_metadata=embed_metadata,
        )
        return (
            yield from self.submit(
                "txt2img",
                prompt=prompt,
                **given,
                **params,
                metadata=metadata,
                idempotency_key=idempotency_key,
                expires_in_s=expires_in_s,
                priority=priority,
                keep_s=keep_s,
            )
        )

    @call
    def img2txt(
        self,
        /,
        image: Picture,
        *,
        model: str | None = None,
        count: int | None = None,
        beam_width: int | None = None,
        max_words: int | None = None,
        metadata: JsonValue = None,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        priority: int = 0,
        keep_s: float | None = None,
        **params: Any,
    ) -> Steps[str]:
        """Upload a picture and submit a job that captions it; returns without waiting.

        `params` are as those of `txt2img`. Raises what that raises, and `InvalidImage` or
        `StorageUnavailable`.
        """
        given = _given(model=model, count=count, beam_width=beam_width, max_words=max_words)
        return (
            yield from self.submit(
                "img2txt",
                image=image,
                **given,
                **params,
                metadata=metadata,
                idempotency_key=idempotency_key,
                expires_in_s=expires_in_s,
                priority=priority,
                keep_s=keep_s,
            )
        )

    @call
    def submit(
        self,
        /,
        params: Params | str,
        *,
        idempotency_key: str | None = None,
        expires_in_s: float | None = None,
        priority: int = 0,
        keep_s: float | None = None,
        origin: Origin = NOBODY,
        **fields: Any,
    ) -> Steps[str]:
        """Submit a job of any kind, on behalf of `origin`; returns without waiting.

        `params` are already built, or the name of a kind whose params are the other arguments: a
        picture among them is uploaded. Raises what `txt2img` and `img2txt` raise.
        """
        if isinstance(params, str):
            params = yield from self._built(kind_named(params), fields)
        elif fields or not isinstance(params, Params):
            what = f"{shown(params)} with {', '.join(fields)}" if fields else shown(params)
            raise InvalidParams(
                f"params are {what}: give built ones, as Txt2ImgParams(…), or the name of a kind "
                "with its params by name"
            )
        elif isinstance(params, ItemParams):
            params = yield from self.checked(kind_of(params), dict(params))
        if idempotency_key is not None:
            check_text("idempotency_key", idempotency_key)
        check_seconds("expires_in_s", expires_in_s)
        check_priority(priority)
        check_keep(keep_s)
        task, fixed = task_of(params), fix_seed(params)
        queue = (yield from self.models()).queue(task, {"model": params.model})
        proposed = new_job_id()
        job_id, _ = yield from self.ledger.submit(
            proposed,
            task,
            json.dumps(recorded(fixed)),
            fingerprint(
                task, params, expires_in_s, origin.webhook, priority=priority, keep_s=keep_s
            ),
            model=queue.model,
            message=message_of(
                proposed, fixed, queue.model, broker_priority(priority, origin.owner)
            ),
            idempotency_key=idempotency_key,
            expires_in_s=expires_in_s,
            origin=origin,
            priority=priority,
            keep_s=keep_s,
        )
        return job_id

    def _built(self, kind: Kind, fields: dict[str, Any]) -> Steps[ItemParams]:
        """The params of a kind, checked before their picture is uploaded."""
        if kind.picture is None or kind.picture not in fields:
            return (yield from self.checked(kind, fields))
        field = kind.picture
        image = yield Blocking(lambda: self._read(fields[field]))
        params = yield from self.checked(kind, fields | {field: ANY_BLOB})
        stored = yield from self.upload(image)
        return params.model_copy(update={field: stored})

    @call
    def checked(
        self, kind: Kind, fields: dict[str, Any], where: str = "", beside: Iterable[str] = ()
    ) -> Steps[ItemParams]:
        """Params as their model takes them; what it does not take is refused by fresh news."""
        try:
            known = yield from self.models()
        except BrokerUnavailable:
            kind.build(fields)  # what is wrong in any case is said first
            raise
        try:
            return known.build(kind, fields, where, beside)
        except (InvalidParams, ModelBroken):
            return (yield from self.models(max_age_s=STALE_S)).build(kind, fields, where, beside)

    @call
    def retry(self, job: Handle | str, *, max_queued: int | None = None) -> Steps[str]:
        """Submit what has failed, or was canceled or expired, as a new job; asked twice, as one.

        It is its owner's as before, and told to the same webhook. `max_queued` is the limit of the
        API key that asks for it, if any: the owner's own comes first. Raises `JobNotFound`,
        `WrongState`, and what `submit` raises.
        """
        known = yield from self.record(job)
        if not known.state.is_terminal or known.state is JobState.SUCCEEDED or known.task.is_bulk:
            what = "a message of a batch" if known.task.is_bulk else known.state
            raise WrongState(
                f"job {known.id} is {what}: only single jobs that have failed, or were canceled or "
                "expired, can be run again"
            )
        if max_queued is not None:
            max_queued = yield from ApiKeys(self.settings).max_queued(known.owner, max_queued)
        webhook = yield from self.ledger.webhook(known.id)
        params = yield from self.checked(known.task.kind, known.params)
        return (
            yield from self.submit(
                params,
                idempotency_key=f"retry:{known.id}",
                priority=known.priority,
                keep_s=known.keep_s,
                origin=Origin(known.owner, max_queued, webhook=webhook),
            )
        )

    @call
    def delete(self, job: Handle | str) -> Steps[None]:
        """Delete an ended job's record and what it stored. Raises `JobNotFound`, `WrongState`."""
        known = yield from self.record(job)
        if known.task.is_bulk:
            raise WrongState(
                f"job {known.id} is a message of a batch: only single jobs can be deleted"
            )
        yield from self.ledger.remove(known.id)
        yield Blocking(lambda: self._delete_all(f"{RESULTS}/{known.id}"))

    def _delete_all(self, folder: str) -> None:
        for blob in list(self.storage.list(folder)):
            self.storage.delete(blob.key)

    @call
    def upload(self, image: Picture, *, owner: str = "") -> Steps[BlobRef]:
        """Store a picture under its digest, unless it is a blob already.

        Raises `InvalidImage` or `StorageUnavailable`.
        """
        if isinstance(image, BlobRef):
            return image
        stored: BlobRef = yield Blocking(lambda: self._put(image, owner))
        return stored

    def _read(self, image: Picture) -> BlobRef | bytes:
        """A picture's bytes, if it is none of the store's, which is opened for it."""
        if isinstance(image, BlobRef):
            return image
        data = bytes_of(image, self.settings.max_image_bytes)
        media_type(data)
        _ = self.storage
        return data

    def _put(self, image: Picture, owner: str) -> BlobRef:
        data = bytes_of(image, self.settings.max_image_bytes)
        return self.storage.put_input(data, media_type(data), check_text("owner", owner))

    # -- many at once -------------------------------------------------------------------

    def map_txt2img(
        self,
        /,
        prompts: Iterable[str],
        *,
        model: str | None = None,
        count: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        format: ImageFormat | None = None,
        quality: int | None = None,
        embed_metadata: bool | None = None,
        batch_id: str | None = None,
        **params: Any,
    ) -> Batch:
        """Draw every prompt; yields each result as it comes, `index` says of which prompt.

        Picture j of prompt i is drawn with `seed` + i * `count` + j, or with seeds that follow
        from `batch_id`: so with the same id, a rerun goes on where the last run stopped. A
        prompt that fails has a `failure`; the others do not mind. Raises `InvalidParams`,
        `IdempotencyConflict` for an id that other prompts had, `BrokerUnavailable`,
        `StorageUnavailable`.
        """
        name = _batch_name(batch_id)
        given = _given(
            model=model,
            count=count,
            seed=seed,
            temperature=temperature,
            format=format,
            quality=quality,
            embed_metadata=embed_metadata,
        )
        return self.map_items(prompt_items(prompts, name, given | params), batch_id=name)

    def map_img2txt(
        self,
        /,
        images: Iterable[Picture],
        *,
        model: str | None = None,
        count: int | None = None,
        beam_width: int | None = None,
        max_words: int | None = None,
        batch_id: str | None = None,
        **params: Any,
    ) -> Batch:
        """Caption every picture; yields each result as it comes, `index` says of which picture.

        Pictures are read as they are sent. See `map_txt2img` for the rest.
        """
        given = _given(model=model, count=count, beam_width=beam_width, max_words=max_words)
        items = picture_items(images, given | params, self.settings.max_image_bytes)
        return self.map_items(items, batch_id=batch_id)

    def map_items(
        self,
        items: Iterable[Request | ItemResult],
        *,
        batch_id: str | None = None,
        origin: Origin = NOBODY,
    ) -> Batch:
        """`map_txt2img` and `map_img2txt` for items of any kind, with params of their own."""
        return Batch(self, _batch_name(batch_id), checked_items(items), origin)

    # -- reading ------------------------------------------------------------------------

    @call
    def read(self, blob: BlobRef) -> Steps[bytes]:
        """The bytes of a blob. Raises `BlobNotFound` or `StorageUnavailable`."""
        data: bytes = yield Blocking(lambda: self.storage.get(_checked(blob)))
        return data

    @call
    def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> Steps[str | None]:
        """A URL under which anybody can read the blob for a while; None for a local folder."""
        if check_seconds("expires_in_s", expires_in_s) is None:
            raise InvalidParams("expires_in_s is None: give a number of seconds")
        url: str | None = yield Blocking(
            lambda: self.storage.sign(_checked(blob).key, expires_in_s)
        )
        return url


def _given(**params: Any) -> dict[str, Any]:
    """Those that were given: for the others, the model has defaults."""
    return {name: value for name, value in params.items() if value is not None}


def _checked(blob: object) -> BlobRef:
    if not isinstance(blob, BlobRef):
        raise InvalidParams(
            f"the blob is {shown(blob)}: give a BlobRef, as one of a result's `images`"
        )
    return blob


def _batch_name(batch_id: str | None) -> str:
    return new_job_id() if batch_id is None else check_batch_id(check_text("batch_id", batch_id))
