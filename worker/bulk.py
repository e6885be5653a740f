"""An attempt at a bulk job: the items of one message, a part of them at a time.

While a part is on the device, the one before it is stored and the one after it prepared. A
part that is stored is never run again: the next attempt goes on after it. What is wrong with
an item becomes its own failure.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmodal import tracing
from crossmodal.errors import (
    BlobNotFound,
    CrossmodalError,
    InvalidParams,
    ModelHostCrashed,
    is_callers_fault,
)
from crossmodal.jobs.bulk import BulkItem, unpack_items
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import (
    BlobRef,
    BulkParams,
    Img2TxtParams,
    ItemParams,
    Txt2ImgParams,
    parse_item,
    parse_items,
    task_of,
)
from crossmodal.jobs.record import ITEM_RESULTS, Failure, ItemResult, JobResult, Timings
from crossmodal.metrics import output_stored
from crossmodal.parts import finished_parts, put_part, read_part
from crossmodal.settings import Settings
from crossmodal.vision.preprocess import fit_square
from worker.blobs import Blobs
from worker.host.client import HostClient
from worker.host.protocol import Answer, HostInfo
from worker.wanted import Wanted

PART_S = 0.2  # of work is a part, or a whole batch of the device where that takes longer
PACKED_KEY = "packed"  # stands for the key of a picture that came with its item


class _Prepared(NamedTuple):
    """An item that is fit for the models, or the reason that it is not."""

    place: int
    custom_id: str
    params: ItemParams | None = None
    image: NDArray[np.uint8] | None = None
    error: CrossmodalError | None = None


Answers = dict[int, Answer | CrossmodalError]


class BulkRun:
    """Runs bulk jobs."""

    def __init__(
        self, settings: Settings, blobs: Blobs, host: HostClient, threads: ThreadPoolExecutor
    ) -> None:
        self._settings = settings
        self._blobs = blobs
        self._host = host
        self._threads = threads
        # What an item took lately, until it came back from the host.
        self._item_s = dict.fromkeys(Task, float("inf"))

    def run(self, attempt: Attempt, params: BulkParams, wanted: Wanted) -> JobResult:
        """The results of all items, stored in parts. Raises `NoLongerWanted`, and what keeps
        the message from going on: the object store or the model host."""
        begun = time.monotonic()
        info = self._host.info(wanted)
        with tracing.span("fetch input"):
            items = wanted.patiently(lambda: unpack_items(self._blobs.store.get(params.input)))
        if len(items) != params.items:
            raise InvalidParams(f"the message holds {len(items)} items, not {params.items}")
        done = wanted.patiently(lambda: self._done_before(attempt))
        message = _Message(attempt, Task(params.kind), items, info, wanted)
        for part, results in self._parts(message, {r.index for rs in done.values() for r in rs}):
            done[part] = results
        results = [result for rs in done.values() for result in rs]
        failed = sum(result.failure is not None for result in results)
        run_s = time.monotonic() - begun
        result = JobResult(
            job=attempt.job,
            task=task_of(params),
            params=params.model_dump(mode="json", exclude={"metadata"}),
            parts=tuple(done),
            completed=len(results) - failed,
            failed=failed,
            model=info.model,
            bundle_version=info.bundle_version,
            timings=Timings(
                queued_s=round(attempt.queued_s, 6), batch_wait_s=0.0, inference_s=0.0,
                store_s=0.0, total_s=round(attempt.queued_s + run_s, 6),
            ),
            batch_size=min(len(items), self._settings.bulk_batch),
            attempt=attempt.number,
        )  # fmt: skip
        wanted.patiently(lambda: self._blobs.put_result(result))
        return result

    def _done_before(self, attempt: Attempt) -> dict[BlobRef, list[ItemResult]]:
        """The parts that earlier attempts have finished; of those that overlap, the first."""
        done: dict[BlobRef, list[ItemResult]] = {}
        seen: set[int] = set()
        if attempt.number > 1:
            for part in finished_parts(self._blobs.store, attempt.job):
                results = read_part(self._blobs.store, part)
                if seen.isdisjoint(r.index for r in results):
                    seen.update(r.index for r in results)
                    done[part] = results
        return done

    def _parts(
        self, message: "_Message", done: set[int]
    ) -> Iterator[tuple[BlobRef, list[ItemResult]]]:
        """Each part as it is stored."""
        todo = [i for i in range(len(message.items)) if i not in done]
        prepared = self._prepare_next(message, todo)
        storing: Future[tuple[BlobRef, list[ItemResult]]] | None = None
        while prepared is not None:
            now = message.wanted.wait(prepared)
            prepared = self._prepare_next(message, todo)
            begun = time.monotonic()
            with tracing.span("infer", kind="client", first=now[0].place, items=len(now)):
                answers = self._ask(message, now)
            if answers:
                self._item_s[message.task] = max(time.monotonic() - begun, 1e-6) / len(answers)
            if storing is not None:
                yield message.wanted.wait(storing)
            message.wanted.check()
            storing = self._threads.submit(self._store, message, now, answers)
        if storing is not None:
            yield message.wanted.wait(storing)

    def _prepare_next(
        self, message: "_Message", todo: list[int]
    ) -> "Future[list[_Prepared]] | None":
        """The next part, taken from what is `todo`, being prepared."""
        if not todo:
            return None
        quick = int(PART_S / self._item_s[message.task])
        size = 1 if message.attempt.is_suspect else max(self._settings.bulk_batch, quick)
        part, todo[:] = todo[:size], todo[size:]
        return self._threads.submit(self._prepare, message, part)

    def _prepare(self, message: "_Message", part: list[int]) -> list[_Prepared]:
        with tracing.span("prepare", first=part[0], items=len(part)):
            raws = [_raw(message.items[i]) for i in part]
            known: Sequence[ItemParams | None]
            try:
                known = parse_items(message.task, raws)
            except InvalidParams:  # in at least one of them, which is to fail alone
                known = [None] * len(part)
            return [
                self._prepare_item(message, *item) for item in zip(part, raws, known, strict=True)
            ]

    def _prepare_item(
        self, message: "_Message", index: int, raw: dict[str, Any], known: ItemParams | None
    ) -> _Prepared:
        item = message.items[index]
        try:
            params = known or parse_item(message.task, raw)
            image = None
            if isinstance(params, Img2TxtParams):
                pixels = (
                    self._blobs.picture(params.image)
                    if item.image is None
                    else self._blobs.pixels(item.image)
                )
                image = fit_square(pixels, message.info.image_side)
            return _Prepared(index, item.custom_id, params, image)
        except CrossmodalError as e:
            if not (is_callers_fault(e.code) or isinstance(e, BlobNotFound)):
                raise
            return _Prepared(index, item.custom_id, error=e)

    def _ask(self, message: "_Message", part: list[_Prepared]) -> Answers:
        """What the models make of each item that is fit for them."""
        fit = {p.place: (p.params, p.image) for p in part if p.params is not None}
        if not fit:
            return {}
        alone = message.attempt.is_suspect
        tries = 0
        while True:
            try:
                answers = self._host.run(
                    message.task, list(fit.values()), alone=alone, bulk=True,
                    is_wanted=message.wanted,
                )  # fmt: skip
                return dict(zip(fit, answers, strict=True))
            except ModelHostCrashed as e:
                if not alone:
                    raise  # the next attempt takes them one by one
                tries += e.batch_size == 1
                if tries >= self._settings.max_attempts:
                    return dict.fromkeys(fit, e)

    def _store(
        self, message: "_Message", part: list[_Prepared], answers: Answers
    ) -> tuple[BlobRef, list[ItemResult]]:
        begun = time.monotonic()
        attempt = message.attempt
        with tracing.span("store", first=part[0].place, items=len(part)):
            results = ITEM_RESULTS.validate_python(
                [self._result(message, item, answers.get(item.place)) for item in part]
            )
            stored = put_part(self._blobs.store, attempt.job, attempt.number, results)
        output_stored(message.task.in_bulk, time.monotonic() - begun)
        return stored, results

    def _result(
        self, message: "_Message", item: _Prepared, answer: Answer | CrossmodalError | None
    ) -> dict[str, Any]:
        """The fields of an `ItemResult`."""
        named = {"index": item.place, "custom_id": item.custom_id}
        error = item.error or (answer if isinstance(answer, CrossmodalError) else None)
        if error is not None or item.params is None or not isinstance(answer, Answer):
            failure = Failure.of(error or CrossmodalError("the models gave no answer"))
            return {**named, "failure": failure}
        folder = f"{item.place}-"
        return {
            **named,
            "images": self._blobs.put_images(message.attempt, item.params, answer, folder),
            "captions": answer.captions,
            "seed": item.params.seed if isinstance(item.params, Txt2ImgParams) else None,
            "unknown_words": answer.unknown_words,
            "suggestions": answer.suggestions,
        }


def _raw(item: BulkItem) -> dict[str, Any]:
    """The params of an item, for which a picture that came with it needs no key of its own."""
    return item.params if item.image is None else item.params | {"image": {"key": PACKED_KEY}}


@dataclass(frozen=True)
class _Message:
    """What all parts of a message share."""

    attempt: Attempt
    task: Task
    items: list[BulkItem]
    info: HostInfo
    wanted: Wanted
