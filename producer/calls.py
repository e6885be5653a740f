"""The methods of both clients as calls: written once, run by `Client` and by `AsyncClient`.

Their docstrings are those of the clients' methods. They return a job as its id, which each client
wraps in its own handle.
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
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.images import ImageFormat
from crossmodal.kinds.registry import kind_named, kind_of
from crossmodal.unknown import shown
from crossmodal.vision.media import media_type
from producer.batches.bulk import Batch, Request
from producer.batches.items import ANY_BLOB, checked_items, picture_items, prompt_items
from producer.checks import check_keep, check_priority, check_seconds, check_text
from producer.handle import Handle
from producer.operating import Operating
from producer.pictures.files import Picture, bytes_of

STALE_S = 1.0  # older knowledge of models is refreshed before params are refused


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

        `params` are those that only the `model` has, such as `steps` or `width`; the model has
        defaults for omitted ones. `priority` is -1, 0 or 1, and orders waiting jobs; `keep_s` is
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

        `params` as in `txt2img`. Raises what `txt2img` raises, and `InvalidImage` or
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

        `params` is a built object, or the name of a kind whose params are given as `fields`; a
        picture among them is uploaded. Raises what `txt2img` and `img2txt` raise.
        """
        params = yield from self._params(params, fields)
        if idempotency_key is not None:
            check_text("idempotency_key", idempotency_key)
        check_seconds("expires_in_s", expires_in_s)
        check_priority(priority)
        check_keep(keep_s)
        task, fixed = task_of(params), fix_seed(params)
        queue = (yield from self.models()).queue(task, {"model": params.model})
        proposed = new_job_id()
        job_id, _ = yield from self.ledger.submit(
            Submission(
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
        )
        return job_id

    def _params(self, params: Params | str, fields: dict[str, Any]) -> Steps[Params]:
        """Return checked params: built ones, or those of a kind by its name."""
        if isinstance(params, str):
            return (yield from self._built(kind_named(params), fields))
        if fields or not isinstance(params, Params):
            what = f"{shown(params)} with {', '.join(fields)}" if fields else shown(params)
            raise InvalidParams(
                f"params are {what}: give built ones, as Txt2ImgParams(…), or the name of a kind "
                "with its params by name"
            )
        if isinstance(params, ItemParams):
            return (yield from self.checked(kind_of(params), dict(params)))
        return params

    def _built(self, kind: Kind, fields: dict[str, Any]) -> Steps[ItemParams]:
        """Build the params of a kind, checking them before their picture is uploaded."""
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
        """Return params checked against their model; refresh stale models before refusing."""
        try:
            known = yield from self.models()
        except BrokerUnavailable:
            kind.build(fields)  # report first what no model accepts
            raise
        try:
            return known.build(kind, fields, where, beside)
        except (InvalidParams, ModelBroken):
            return (yield from self.models(max_age_s=STALE_S)).build(kind, fields, where, beside)

    @call
    def retry(self, job: Handle | str, *, max_queued: int | None = None) -> Steps[str]:
        """Submit a failed, canceled or expired job again as a new one; idempotent.

        Owner and webhook stay the same. `max_queued` is the limit of the API key that makes the
        call, if any; the owner's own limit takes precedence. Raises `JobNotFound`,
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
        """Delete an ended job's record and results. Raises `JobNotFound`, `WrongState`."""
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
        """Return the bytes of a picture that is not a blob yet, and open the object store."""
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
        """Draw every prompt; yields each result as it comes, with its prompt's `index`.

        Picture j of prompt i has the seed `seed` + i * `count` + j or, without `seed`, one that
        derives from `batch_id`: with the same id, a rerun goes on where the last run stopped. A
        prompt that fails has a `failure`; the others are unaffected. Raises `InvalidParams`,
        `IdempotencyConflict` for an id used with other prompts, `BrokerUnavailable`,
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
        """Caption every picture; yields each result as it comes, with its picture's `index`.

        Each picture is read when it is sent. See `map_txt2img` for the rest.
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
        """Run items of any kind, each with its own params. See `map_txt2img`."""
        return Batch(self, _batch_name(batch_id), checked_items(items), origin)

    # -- reading ------------------------------------------------------------------------

    @call
    def read(self, blob: BlobRef) -> Steps[bytes]:
        """Return the bytes of a blob. Raises `BlobNotFound` or `StorageUnavailable`."""
        data: bytes = yield Blocking(lambda: self.storage.get(_checked(blob)))
        return data

    @call
    def sign(self, blob: BlobRef, expires_in_s: float = 3_600) -> Steps[str | None]:
        """Return a URL that lets anybody read the blob for a while; None for a local folder."""
        if check_seconds("expires_in_s", expires_in_s) is None:
            raise InvalidParams("expires_in_s is None: give a number of seconds")
        url: str | None = yield Blocking(
            lambda: self.storage.sign(_checked(blob).key, expires_in_s)
        )
        return url


def _given(**params: Any) -> dict[str, Any]:
    """Return the params that are not None; the model has defaults for the others."""
    return {name: value for name, value in params.items() if value is not None}


def _checked(blob: object) -> BlobRef:
    if not isinstance(blob, BlobRef):
        raise InvalidParams(
            f"the blob is {shown(blob)}: give a BlobRef, as one of a result's `images`"
        )
    return blob


def _batch_name(batch_id: str | None) -> str:
    return new_job_id() if batch_id is None else check_batch_id(check_text("batch_id", batch_id))
