"""A worker without a model that runs jobs in this process."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.bulk import BulkItem, unpack_items
from crossmodal.jobs.ledger import Attempt, JobLedger
from crossmodal.jobs.names import CAPTIONS, result_key
from crossmodal.jobs.params import BulkParams, parse_params, task_of
from crossmodal.jobs.record import (
    Failure,
    GeneratedCaption,
    ImageRef,
    ItemResult,
    JobResult,
    Timings,
)
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.images import QUALITY, files_of
from crossmodal.kinds.registry import kind_of
from crossmodal.kinds.task import Task
from crossmodal.parts import put_part
from crossmodal.storage import Storage
from crossmodal.vision.media import media_type
from producer.pictures.formats import converted
from producer.pictures.png import write_png
from producer.twins import Runs

NAME = "fake"
SIDE = 8  # pixels of a picture

Draw = Callable[[Any], Sequence[bytes]]
"""Returns `count` PNG files for params of a kind that makes pictures, as `Txt2ImgParams`; other
formats are converted from these, which needs Pillow."""
Describe = Callable[[Any, bytes], Sequence[str]]
"""Returns `count` captions, likeliest first, for params as `Img2TxtParams` and the picture's
file."""


def plain_pictures(params: ItemParams) -> list[bytes]:
    """Return small PNG files, each of one color that depends on the prompt and the seed."""
    prompt, first = getattr(params, "prompt", ""), getattr(params, "seed", None) or 0
    digests = (_digest(f"{prompt} {first + i}".encode()) for i in range(params.count))
    return [write_png(digest[:3] * SIDE * SIDE, SIDE, SIDE, 3) for digest in digests]


def plain_captions(params: ItemParams, image: bytes) -> list[str]:
    """Return sentences that depend on the picture's bytes."""
    name = _digest(image).hex()[:8]
    return [f"caption {i + 1} of picture {name}" for i in range(params.count)]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Made(NamedTuple):
    """The output of one request."""

    images: tuple[ImageRef, ...] = ()
    captions: tuple[GeneratedCaption, ...] = ()
    seed: int | None = None


class FakeWorker:
    """A worker that runs jobs with two functions, whose errors end a job as in a real worker."""

    def __init__(
        self, runner: Runs, ledger: JobLedger, storage: Storage, draw: Draw, describe: Describe
    ) -> None:
        self._run = runner.run
        self._ledger = ledger
        self._storage = storage
        self._draw = draw
        self._describe = describe
        self.failures: list[CrossmodalError] = []
        """Errors with which the next requests fail."""

    def run(self, job_id: str) -> bool:
        """Run a job to its end; return False if it could not start."""
        attempt = self._run(self._ledger.start(job_id, NAME))
        if not isinstance(attempt, Attempt):
            return False
        try:
            task = self._run(self._ledger.get(job_id)).task
            result = self._result(attempt, task)
        except CrossmodalError as e:
            self._run(self._ledger.fail(attempt, Failure.of(e)))
        except Exception as e:  # noqa: BLE001 - the caller's functions may raise anything
            self._run(self._ledger.fail(attempt, _internal(e)))
        else:
            self._run(self._ledger.succeed(attempt, result))
        return True

    def _result(self, attempt: Attempt, task: Task) -> JobResult:
        begun = time.time()
        params = parse_params(task, attempt.params)
        if isinstance(params, BulkParams):
            results = self._items(attempt, params)
            failed = sum(result.failure is not None for result in results)
            part = put_part(self._storage, attempt.job, attempt.number, results)
            made: dict[str, Any] = {
                "parts": (part,),
                "completed": len(results) - failed,
                "failed": failed,
            }
        else:
            made = self._make(attempt, params, None)._asdict()
            self._put_captions(attempt, made["captions"])
        waits_s, run_s = attempt.queued_s, time.time() - begun
        return JobResult(
            job=attempt.job,
            task=task_of(params),
            **made,
            params=params.model_dump(mode="json", exclude={"metadata"}),
            metadata=params.metadata,
            model=NAME,
            bundle_version=NAME,
            batch_size=1,
            attempt=attempt.number,
            timings=Timings(
                queued_s=waits_s,
                batch_wait_s=0.0,
                inference_s=run_s,
                store_s=0.0,
                total_s=waits_s + run_s,
            ),
        )

    def _put_captions(self, attempt: Attempt, captions: Sequence[GeneratedCaption]) -> None:
        if captions:
            text = json.dumps([caption.model_dump() for caption in captions])
            key = result_key(attempt.job, CAPTIONS, attempt.number)
            self._storage.put(key, text.encode(), "application/json")

    def _items(self, attempt: Attempt, params: BulkParams) -> list[ItemResult]:
        items = unpack_items(self._storage.get(params.input))
        return [self._item(attempt, Task(params.kind), i, item) for i, item in enumerate(items)]

    def _item(self, attempt: Attempt, task: Task, index: int, item: BulkItem) -> ItemResult:
        field = task.kind.picture
        packed = {field: {"key": "packed"}} if field and item.image is not None else {}
        try:
            params = task.kind.build(item.params | packed)
            made = self._make(attempt, params, item.image, f"{index}-")._asdict()
        except CrossmodalError as e:
            made = {"failure": Failure.of(e)}
        except Exception as e:  # noqa: BLE001 - the caller's functions may raise anything
            made = {"failure": _internal(e)}
        return ItemResult(index=index, custom_id=item.custom_id, **made)

    def _make(
        self, attempt: Attempt, params: ItemParams, image: bytes | None, folder: str = ""
    ) -> Made:
        if self.failures:
            raise self.failures.pop(0)
        ref = kind_of(params).image_of(params)
        data = image or (self._storage.get(ref) if ref else b"")
        if ref is not None:
            media_type(data)
        if kind_of(params).output == "images":
            files = _counted(self._draw(params), params)
            images = self._stored(attempt, params, files, folder)
            return Made(images, seed=getattr(params, "seed", None))
        captions = _counted(self._describe(params, data), params)
        return Made(
            captions=tuple(
                GeneratedCaption(text=text, log_probability=-1.0 - i)
                for i, text in enumerate(captions)
            )
        )

    def _stored(
        self, attempt: Attempt, params: ItemParams, files: Sequence[bytes], folder: str
    ) -> tuple[ImageRef, ...]:
        refs, kind = [], files_of(params).format
        for i, data in enumerate(files):
            if media_type(data) != "image/png":
                raise TypeError("`draw` returned a picture that is not a PNG file")
            key = result_key(attempt.job, f"{folder}{i}.{kind}", attempt.number)
            blob = self._storage.put(key, _in_format(data, params), f"image/{kind}")
            width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
            refs.append(ImageRef(**blob.model_dump(), width=width, height=height))
        return tuple(refs)


def _counted(made: Sequence[bytes] | Sequence[str], params: ItemParams) -> Sequence[Any]:
    if isinstance(made, str | bytes):
        raise TypeError(f"outputs are a {type(made).__name__}: return a list of them")
    if len(made) != params.count:
        raise TypeError(f"outputs returned: {len(made)}, but count is {params.count}")
    return made


def _in_format(png: bytes, params: ItemParams) -> bytes:
    """Convert a PNG file to the params' format. Raises `ExtraMissing`."""
    files = files_of(params)
    if files.format == "png":
        return png
    return converted(png, files.format.upper(), files.quality or QUALITY)


def _internal(error: Exception) -> Failure:
    return Failure(code=CrossmodalError.code, message=f"{type(error).__name__}: {error}")
