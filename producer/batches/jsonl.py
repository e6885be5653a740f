"""Batch files in the format of the OpenAI Batch API: one request or result per line.

    {"custom_id": "a", "method": "POST", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}}
    {"custom_id": "b", "url": "/v1/img2txt", "body": {"image": {"path": "photo.jpg"}}}

A file may mix kinds. A picture is `{"path": …}` beside the file, `{"data": …}` in base64 or as a
`data:` URL, or `{"key": …}` in the object store. In a result, `response` or `error` is null.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crossmodal.errors import CrossmodalError, InvalidParams
from crossmodal.files import open_regular
from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import Failure, ItemResult
from crossmodal.kinds.base import Kind
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.task import Task
from crossmodal.unknown import check_fields
from crossmodal.vision.media import check_size
from producer.batches.bulk import Request
from producer.batches.inline import decoded
from producer.batches.seeds import item_seed
from producer.pictures.files import bytes_of

ROOT = "/v1/"  # the prefix of a line's url; its kind follows
FIELDS = ("custom_id", "method", "url", "body")  # the fields of a line
WAYS = ("path", "data", "key")  # the ways to give a picture
OF_KEY = tuple(name for name in BlobRef.model_fields if name != "key")
MAX_CUSTOM_ID = 512
MAX_VALUES = 10_000
MAX_BESIDE = 1_000_000  # max bytes of a line beside its picture
REFUSED = "refused"  # the field for why a line fails, in a file that was checked before


class BatchFile:
    """A reader of a batch file: its number of items, and each item.

    `task` is the task of lines without a url: the given one, or that of the first line with a
    url. `queues` are the interactive queues of the items read so far. Lines of an uploaded file
    (not `is_ours`) cannot name files of this machine.
    """

    def __init__(
        self,
        path: Path,
        task: Task | None,
        batch_id: str,
        max_image_bytes: int,
        models: Callable[[], KnownModels],
        *,
        is_ours: bool = True,
    ) -> None:
        self.path = path
        self._is_ours = is_ours
        self._ask = models
        self._models = KnownModels()
        self._batch_id = batch_id
        self._max_image_bytes = max_image_bytes
        self.queues: set[Queue] = set()
        try:
            self.total = sum(1 for line in self._lines() if line.strip())
            self.task = task or self._task_of_first()
        except OSError as e:
            raise InvalidParams(f"{path} cannot be read: {e.strerror}") from e

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of the file; too long ones truncated to one byte more than allowed."""
        max_bytes = self._max_image_bytes * 4 // 3 + MAX_BESIDE
        with open_regular(self.path) as file:
            while line := file.readline(max_bytes + 1):
                yield line
                while len(line) > max_bytes and not line.endswith(b"\n"):
                    line = file.readline(max_bytes + 1)

    @property
    def only_task(self) -> Task | None:
        """The kind of all items read so far; None for several kinds."""
        tasks = {queue.task for queue in self.queues} or {self.task}
        return next(iter(tasks)) if len(tasks) < 2 else None

    def items(self) -> Iterator[Request | ItemResult]:
        """Yield each line as an item and its kind, or as a failure."""
        seen: set[str] = set()
        self._models = self._ask()
        index = 0
        for number, line in enumerate(self._lines(), 1):
            if line.strip():
                yield self._item(index, number, line, seen)
                index += 1

    def _task_of_first(self) -> Task:
        is_read, fault = False, ""
        for number, line in enumerate(self._lines(), 1):
            try:
                task = task_of(parsed(line)) if line.strip() else None
                is_read = is_read or bool(line.strip())
            except InvalidParams as e:  # such a line fails alone
                task, fault = None, fault or f"line {number}: {e}"
            if task is not None:
                return task
        raise InvalidParams(self._without_task("" if is_read else fault))

    def _without_task(self, fault: str) -> str:
        """Say why the file has no kind; `fault` is the first, if no line can be read."""
        file = str(self.path) if self._is_ours else "the file"
        if not self.total:
            return f"{file} is empty: write one request per line"
        if fault:
            return f"no line of {file} can be read: {fault}"
        remedy = "give --task" if self._is_ours else "give each line one"
        return f"no line of {file} has a url {_urls()}: {remedy}"

    def _item(self, index: int, number: int, line: bytes, seen: set[str]) -> Request | ItemResult:
        custom_id = f"line {number}"
        try:
            request = parsed(line)
            custom_id = _custom_id(request, custom_id, seen)
            if REFUSED in request:
                return _failed_before(index, custom_id, request[REFUSED])
            check_fields(request, FIELDS)
            task = self._task_of(request)
            body = request.get("body")
            if not isinstance(body, dict):
                raise InvalidParams("body is not a JSON object with the params of a job")
            self._models.check_fields(task.kind, body, "body")
            item = self._built(task.kind, custom_id, body, index)
        except CrossmodalError as e:
            return ItemResult(index=index, custom_id=custom_id, failure=Failure.of(e))
        self.queues.add(self._models.queue(task, body))
        return task, item

    def _task_of(self, request: dict[str, Any]) -> Task:
        task = task_of(request) if "url" in request else self.task
        if task is None:
            raise InvalidParams(f"url {request['url']!r} is not {_urls()}")
        return task

    def _picture(self, image: Any, where: str) -> dict[str, Any]:
        """Check that a picture is given in exactly one way. Raises `InvalidParams`."""
        ways = WAYS if self._is_ours else WAYS[1:]
        if not isinstance(image, dict):
            raise InvalidParams(f"{where} is not an object: give one of {', '.join(ways)}")
        others = [name for name in image if name not in WAYS]
        check_fields(others, (*ways, *OF_KEY) if "key" in image else ways, where)
        if sum(way in image for way in WAYS) != 1:
            raise InvalidParams(f"{where}: give one of {', '.join(ways)}")
        return image

    def _built(self, kind: Kind, custom_id: str, body: dict[str, Any], index: int) -> BulkItem:
        """Build the item of a line, with a seed if it needs one, and its picture."""
        if kind.is_seeded and body.get("seed") is None:
            body = body | {"seed": item_seed(self._batch_id, index)}
        if kind.picture is None:
            return BulkItem(custom_id, body)
        image = self._picture(body.get(kind.picture), f"body.{kind.picture}")
        rest = {name: value for name, value in body.items() if name != kind.picture}
        if "path" in image:
            return BulkItem(custom_id, rest, self._read(image["path"], f"body.{kind.picture}"))
        if "data" in image:
            picture = decoded(image["data"], f"body.{kind.picture}.data")
            check_size(len(picture), self._max_image_bytes)
            return BulkItem(custom_id, rest, picture)
        return BulkItem(custom_id, body)

    def _read(self, name: object, where: str) -> bytes:
        if not self._is_ours:
            raise InvalidParams(
                f"{where}.path: an uploaded batch cannot name files of the server: send data or key"
            )
        return bytes_of(self.path.parent / str(name), self._max_image_bytes)


def _failed_before(index: int, custom_id: str, failure: Any) -> ItemResult:
    """Return the failure of a line that was refused at upload. Raises `InvalidParams`."""
    try:
        found = Failure.model_validate(failure)
    except ValidationError as e:
        raise InvalidParams(f"unknown field {REFUSED!r}") from e
    return ItemResult(index=index, custom_id=custom_id, failure=found)


def result_line(batch_id: str, result: ItemResult) -> str:
    """Return a result as a line of an output file."""
    made = result.model_dump(
        mode="json", exclude={"index", "custom_id", "failure"}, exclude_defaults=True
    )
    failure = result.failure
    response = None if failure else {"status_code": 200, "body": made}
    error = {"code": failure.code, "message": failure.message} if failure else None
    return json.dumps(
        {
            "id": f"{batch_id}.{result.index}",
            "custom_id": result.custom_id,
            "response": response,
            "error": error,
        }
    )


def is_crowded(text: bytes) -> bool:
    """Whether JSON has more values than any request and would take seconds to parse."""
    return sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES


def fault(error: ValueError | RecursionError) -> str:
    """Describe, for its sender, what is wrong with a text that `json.loads` refuses."""
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error}"
    return "has a number with too many digits"  # Python's own message names one of its functions


def parsed(line: bytes) -> dict[str, Any]:
    """Parse a line as a JSON object. Raises `InvalidParams`."""
    if is_crowded(line):
        raise InvalidParams("the line has more JSON values than a request may have")
    try:
        request = json.loads(line.decode("utf-8-sig", "surrogatepass"))
    except (ValueError, RecursionError) as e:
        raise InvalidParams(f"the line {fault(e)}") from e
    if not isinstance(request, dict):
        raise InvalidParams("the line is not a JSON object")
    return request


def task_of(request: dict[str, Any]) -> Task | None:
    """Return the kind that a line's url names; None if it names none."""
    url = request.get("url")
    name = url.removeprefix(ROOT) if isinstance(url, str) and url.startswith(ROOT) else ""
    return Task(name) if name in kinds() else None


def _urls() -> str:
    """Return the urls that a line may have, as text."""
    return " or ".join(f"{ROOT}{name}" for name in kinds())


def _custom_id(request: dict[str, Any], default: str, seen: set[str]) -> str:
    custom_id = request.get("custom_id", default)
    if not (isinstance(custom_id, str) and 1 <= len(custom_id) <= MAX_CUSTOM_ID):
        raise InvalidParams(f"custom_id is not a string of 1 to {MAX_CUSTOM_ID} characters")
    if custom_id in seen:
        raise InvalidParams(f"the custom_id {custom_id!r} was used in an earlier line")
    seen.add(custom_id)
    return custom_id
