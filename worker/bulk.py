"""An attempt at a bulk job: the items of one message, one part at a time.

While a part is on the device, the previous one is stored and the next one prepared. A stored
part is never run again: the next attempt continues after it. An item's error becomes that
item's own failure.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

from crossmodal import tracing
from crossmodal.errors import (
    BlobDamaged,
    BlobNotFound,
    CrossmodalError,
    ImageDecoderCrashed,
    InvalidParams,
    ModelHostCrashed,
    ModelNotFound,
    is_callers_fault,
)
from crossmodal.jobs.bulk import BulkItem, unpack_items
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.params import MAX_ITEMS, BulkParams, queue_of, task_of
from crossmodal.jobs.record import ITEM_RESULTS, Failure, ItemResult, JobResult, Timings
from crossmodal.kinds.base import ItemParams, Kind, build, build_many
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.queue import Queue
from crossmodal.metrics import output_stored
from crossmodal.parts import finished_parts, put_part, read_part
from crossmodal.settings import Settings
from worker.blobs import Blobs
from worker.cancel import CancelToken
from worker.decoders.process import DecoderUnavailable
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer, HostInfo
from worker.hosts import Hosts, NotServed
from worker.items import Image, Items

PART_S = 0.2  # work in a part, which has at least `bulk_batch` items
MAX_PICTURES = 128 * 2**20  # bytes of the pictures of a part
PACKED_KEY = "packed"  # placeholder key of a picture that is packed with its item
Stored = tuple[BlobRef, list[ItemResult]]
Answers = dict[int, Answer | CrossmodalError]


class Prepared(NamedTuple):
    """An item that is ready for the model, or the reason why it is not."""

    place: int
    custom_id: str
    params: ItemParams | None = None
    image: Image | None = None
    error: CrossmodalError | None = None


@dataclass(frozen=True)
class Message:
    """State shared by all parts of a message; `queue` is that of single jobs like its items."""

    token: CancelToken
    host: HostClient
    queue: Queue
    items: list[BulkItem]
    max_part: int = MAX_ITEMS

    @property
    def attempt(self) -> Attempt:
        return self.token.attempt

    @property
    def kind(self) -> Kind:
        return self.queue.task.kind


class BulkRun:
    """Runs bulk jobs."""

    def __init__(self, settings: Settings, blobs: Blobs, items: Items, hosts: Hosts) -> None:
        self._settings = settings
        self._blobs = blobs
        self._items = items
        self._hosts = hosts
        # Seconds per item in the host, as last measured.
        self._item_s: defaultdict[Queue, float] = defaultdict(lambda: math.inf)

    async def run(self, token: CancelToken, params: BulkParams) -> JobResult:
        """Return the results of all items, stored in parts.

        Raises errors of the object store or the model host, which stop the whole message.
        """
        begun = time.monotonic()
        with tracing.span("fetch input"):
            items, done = await self._blobs.call(self._fetch, params, token.attempt)
        queue = queue_of(params)
        try:
            host = self._hosts.of(queue)
        except NotServed as e:
            raise ModelNotFound(f"this worker serves no model named {params.model}") from e
        message = Message(token, host, queue.of_items, items, await _max_part(queue, host))
        known = {result.index for results in done.values() for result in results}
        async with aclosing(self._parts(message, known)) as parts:
            async for part, results in parts:
                done[part] = results
        info = await host.info()
        return self._result(token.attempt, params, done, info, time.monotonic() - begun)

    def _fetch(
        self, params: BulkParams, attempt: Attempt
    ) -> tuple[list[BulkItem], dict[BlobRef, list[ItemResult]]]:
        """Return the items, and the parts that earlier attempts have stored."""
        items = unpack_items(self._blobs.packed(params.input))
        if len(items) != params.items:
            raise InvalidParams(f"the message holds {len(items)} items, not {params.items}")
        return items, self._done_before(attempt)

    def _done_before(self, attempt: Attempt) -> dict[BlobRef, list[ItemResult]]:
        """Return the parts that earlier attempts have stored; where some overlap, the first."""
        done: dict[BlobRef, list[ItemResult]] = {}
        seen: set[int] = set()
        if attempt.number > 1:
            for part in finished_parts(self._blobs.store, attempt.job, attempt.created_at):
                try:
                    results = read_part(self._blobs.store, part)
                except BlobDamaged:  # by a power cut, for example: its items run again
                    continue
                if seen.isdisjoint(r.index for r in results):
                    seen.update(r.index for r in results)
                    done[part] = results
        return done

    def _result(
        self,
        attempt: Attempt,
        params: BulkParams,
        done: dict[BlobRef, list[ItemResult]],
        info: HostInfo,
        run_s: float,
    ) -> JobResult:
        results = [result for part in done.values() for result in part]
        failed = sum(result.failure is not None for result in results)
        return JobResult(
            job=attempt.job,
            task=task_of(params),
            params=params.model_dump(mode="json", exclude={"metadata"}),
            parts=tuple(done),
            completed=len(results) - failed,
            failed=failed,
            model=info.model,
            bundle_version=info.bundle_version,
            timings=Timings(
                queued_s=round(attempt.queued_s, 6),
                batch_wait_s=0.0,
                inference_s=0.0,
                store_s=0.0,
                total_s=round(attempt.queued_s + run_s, 6),
            ),
            batch_size=min(len(results), self._settings.bulk_batch),
            attempt=attempt.number,
        )

    # -- parts ----------------------------------------------------------------------------

    async def _parts(self, message: Message, done: set[int]) -> AsyncGenerator[Stored]:
        """Yield each part once it is stored."""
        todo = [i for i in range(len(message.items)) if i not in done]
        preparing = self._prepare_next(message, todo)
        storing: asyncio.Task[Stored] | None = None
        try:
            while preparing is not None:
                part = await preparing
                preparing = self._prepare_next(message, todo)
                answers = await self._ask(message, part)
                if storing is not None:
                    yield await storing
                storing = asyncio.create_task(self._store(message, part, answers))
            if storing is not None:
                yield await storing
        finally:
            if preparing is not None:
                preparing.cancel()
            # Wait for the part being stored: the next attempt then continues after it.
            await asyncio.gather(*filter(None, (preparing, storing)), return_exceptions=True)

    def _prepare_next(
        self, message: Message, todo: list[int]
    ) -> asyncio.Task[list[Prepared]] | None:
        """Take the next part off `todo`, and start to prepare it."""
        if not todo:
            return None
        quick = int(PART_S / self._item_s[message.queue])
        size = 1 if message.attempt.is_suspect else max(self._settings.bulk_batch, quick)
        size = min(size, message.max_part)
        part, todo[:] = todo[:size], todo[size:]
        return asyncio.create_task(self._prepare(message, part))

    async def _prepare(self, message: Message, part: list[int]) -> list[Prepared]:
        with tracing.span("prepare", first=part[0], items=len(part)):
            schema = (await message.host.info()).params_of(message.kind)
            parsed = await self._blobs.call(_parsed, message.kind, schema, message.items, part)
            parsed = [self._of_model(message, item) for item in parsed]
            if message.kind.picture is None:
                return parsed
            packed = [message.items[one.place].image for one in parsed]
            return await _all_or_none(
                self._with_image(message.host, *one) for one in zip(parsed, packed, strict=True)
            )

    def _of_model(self, message: Message, item: Prepared) -> Prepared:
        """Return the item, or an error if it names another model than its message's."""
        model = None if item.params is None else item.params.model
        if model is None or self._hosts.runs(message.queue.task, model, message.host):
            return item
        error = ModelNotFound(
            f"the model {model} is no longer the default model: submit the request again"
        )
        return Prepared(item.place, item.custom_id, error=error)

    async def _with_image(self, host: HostClient, item: Prepared, packed: bytes | None) -> Prepared:
        if item.params is None:
            return item
        tries = 0
        while True:
            tries += 1
            try:
                return item._replace(image=await self._items.bulk_image(item.params, packed, host))
            except DecoderUnavailable:
                raise
            except CrossmodalError as e:
                passes = isinstance(e, ImageDecoderCrashed | BlobDamaged)
                if passes and tries < self._settings.max_attempts:
                    continue
                if not (passes or is_callers_fault(e.code) or isinstance(e, BlobNotFound)):
                    raise
                return Prepared(item.place, item.custom_id, error=e)

    async def _ask(self, message: Message, part: list[Prepared]) -> Answers:
        """Return the model's answer to each item that is ready for it."""
        fit = {p.place: HostRequest(p.params, p.image) for p in part if p.params is not None}
        if not fit:
            return {}
        begun = time.monotonic()
        tries = 0
        while True:
            try:
                with tracing.span("infer", kind="client", first=part[0].place, items=len(part)):
                    answers = await self._items.infer(
                        message.token,
                        message.host,
                        message.queue.task,
                        list(fit.values()),
                        bulk=True,
                    )
            except InvalidParams as e:  # one item cannot be sent: send each by itself
                if len(part) == 1:
                    return dict.fromkeys(fit, e)
                return {
                    place: answer
                    for one in part
                    for place, answer in (await self._ask(message, [one])).items()
                }
            except ModelHostCrashed as e:
                if not message.attempt.is_suspect:
                    raise  # the next attempt takes them one by one
                tries += e.batch_size == 1
                if tries >= self._settings.max_attempts:
                    return dict.fromkeys(fit, e)
            else:
                self._item_s[message.queue] = max(time.monotonic() - begun, 1e-6) / len(fit)
                return dict(zip(fit, answers, strict=True))

    async def _store(self, message: Message, part: list[Prepared], answers: Answers) -> Stored:
        with tracing.span("store", first=part[0].place, items=len(part)):
            return await self._blobs.call(self._put, message, part, answers)

    def _put(self, message: Message, part: list[Prepared], answers: Answers) -> Stored:
        begun = time.monotonic()
        results = ITEM_RESULTS.validate_python(
            [self._item_result(message, item, answers.get(item.place)) for item in part]
        )
        attempt = message.attempt
        stored = put_part(self._blobs.store, attempt.job, attempt.number, results)
        output_stored(message.queue.task.in_bulk, time.monotonic() - begun)
        return stored, results

    def _item_result(
        self, message: Message, item: Prepared, answer: Answer | CrossmodalError | None
    ) -> dict[str, Any]:
        """Return the fields of an `ItemResult`."""
        named = {"index": item.place, "custom_id": item.custom_id}
        error = item.error or (answer if isinstance(answer, CrossmodalError) else None)
        if error is not None or item.params is None or not isinstance(answer, Answer):
            failure = Failure.of(
                error or CrossmodalError("the model host gave no answer for this item")
            )
            return {**named, "failure": failure}
        return named | self._items.store(message.token, item.params, answer, f"{item.place}-")


async def _max_part(queue: Queue, host: HostClient) -> int:
    """Return how many items, with their pictures, a part may have."""
    if queue.task.kind.picture is None:
        return MAX_ITEMS
    return max(1, MAX_PICTURES // (await host.info()).fit.max_bytes)


async def _all_or_none(work: Iterable[Coroutine[Any, Any, Prepared]]) -> list[Prepared]:
    """Run coroutines together; when one fails, cancel the others and raise the first failure."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None
    return [task.result() for task in tasks]


def _parsed(
    kind: Kind, schema: type[ItemParams], items: Sequence[BulkItem], part: Sequence[int]
) -> list[Prepared]:
    """Return each item of a part with its params, or with what is wrong with them."""
    raws = [_raw(kind, items[i]) for i in part]
    known: Sequence[ItemParams | None]
    try:
        known = build_many(schema, raws)
    except InvalidParams:  # in at least one item: only that one must fail
        known = [None] * len(part)
    return [
        _parsed_item(schema, i, items[i].custom_id, raw, params)
        for i, raw, params in zip(part, raws, known, strict=True)
    ]


def _parsed_item(
    schema: type[ItemParams],
    place: int,
    custom_id: str,
    raw: dict[str, Any],
    known: ItemParams | None,
) -> Prepared:
    try:
        return Prepared(place, custom_id, known or build(schema, raw))
    except InvalidParams as e:
        return Prepared(place, custom_id, error=e)


def _raw(kind: Kind, item: BulkItem) -> dict[str, Any]:
    """Return the params of an item; a picture packed with it gets a placeholder key."""
    if item.image is None or kind.picture is None:
        return item.params
    return item.params | {kind.picture: {"key": PACKED_KEY}}
