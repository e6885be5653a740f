"""Batch files, in the shape of the OpenAI Batch API's: a request or a result a line.

    {"custom_id": "a", "method": "POST", "url": "/v1/txt2img", "body": {"prompt": "a red circle"}}
    {"custom_id": "b", "url": "/v1/img2txt", "body": {"image": {"path": "photo.jpg"}}}

A file is of one task. A picture is `{"path": …}` beside the file, `{"data": base64}`, or
`{"key": …}` in the object store. Of a result, either `response` or `error` is null.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from crossmodal.errors import BlobNotFound, CrossmodalError, InvalidImage, InvalidParams
from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.names import Task
from crossmodal.jobs.record import Failure, ItemResult
from crossmodal.vision.media import check_size
from producer.seeds import item_seed

URLS = {"/v1/txt2img": Task.TXT2IMG, "/v1/img2txt": Task.IMG2TXT}
MAX_CUSTOM_ID = 512
MAX_VALUES = 10_000
REFUSED = "refused"  # why a line's picture may not be named, in a file that was checked before


class BatchFile:
    """A batch file that is read: its task, how many items, and these one by one.

    Of a file that is not ours, but somebody else's, no line can name a file of this machine.
    """

    def __init__(
        self, path: Path, task: Task | None, batch_id: str, max_image_bytes: int,
        *, is_ours: bool = True,
    ) -> None:  # fmt: skip
        self.path = path
        self._is_ours = is_ours
        self._batch_id = batch_id
        self._max_image_bytes = max_image_bytes
        if path.exists() and not path.is_file():  # such as a pipe, which can be read only once
            raise InvalidParams(f"{path} is no file: write the requests to one")
        try:
            with path.open("rb") as lines:
                self.total = sum(1 for line in lines if line.strip())
            self.task = task or self._task_of_first()
        except OSError as e:
            raise InvalidParams(f"{path} cannot be read: {e.strerror}") from e

    def items(self) -> Iterator[BulkItem | ItemResult]:
        """Each line as an item, or as the failure that it is."""
        seen: set[str] = set()
        index = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._item(index, number, line, seen)
                    index += 1

    def _task_of_first(self) -> Task:
        with self.path.open("rb") as lines:
            for line in lines:
                with suppress(InvalidParams):  # such a line fails alone
                    if (task := _task_of(parsed(line))) is not None:
                        return task
        raise InvalidParams(f"no line of {self.path} has a url {' or '.join(URLS)}: say --task")

    def _item(self, index: int, number: int, line: bytes, seen: set[str]) -> BulkItem | ItemResult:
        custom_id = f"line {number}"
        try:
            request = parsed(line)
            custom_id = _custom_id(request, custom_id, seen)
            if REFUSED in request:
                raise BlobNotFound(str(request[REFUSED]))
            if "url" in request and _task_of(request) is not self.task:
                raise InvalidParams(f"url {request['url']!r}: the batch is of {self.task} requests")
            body = request.get("body")
            if not isinstance(body, dict):
                raise InvalidParams("body is not a JSON object with the params of a job")
            return self._with_picture(custom_id, body, index)
        except CrossmodalError as e:
            return ItemResult(index=index, custom_id=custom_id, failure=Failure.of(e))

    def _with_picture(self, custom_id: str, body: dict[str, Any], index: int) -> BulkItem:
        if self.task is Task.TXT2IMG:
            seed = body.get("seed")
            fixed = item_seed(self._batch_id, index) if seed is None else seed
            return BulkItem(custom_id, body | {"seed": fixed})
        image = body.get("image")
        if not isinstance(image, dict):
            raise InvalidParams('body.image is not {"path": …}, {"data": …} or {"key": …}')
        rest = {name: value for name, value in body.items() if name != "image"}
        if "path" in image and self._is_ours:
            return BulkItem(custom_id, rest, self._read(str(image["path"])))
        if "data" in image:
            return BulkItem(custom_id, rest, self._decoded(image["data"]))
        return BulkItem(custom_id, body)

    def _read(self, name: str) -> bytes:
        path = self.path.parent / name
        try:
            check_size(path.stat().st_size, self._max_image_bytes)
            return path.read_bytes()
        except (OSError, ValueError) as e:
            raise InvalidImage(f"the picture {path} cannot be read: {e}") from e

    def _decoded(self, data: Any) -> bytes:
        try:
            picture = base64.b64decode(data, validate=True)
        except (TypeError, ValueError, binascii.Error) as e:
            raise InvalidImage(f"body.image.data is not base64: {e}") from e
        check_size(len(picture), self._max_image_bytes)
        return picture


def result_line(batch_id: str, result: ItemResult) -> str:
    """A result as a line of an output file."""
    made = result.model_dump(
        mode="json", exclude={"index", "custom_id", "failure"}, exclude_defaults=True
    )
    failure = result.failure
    response = None if failure else {"status_code": 200, "body": made}
    error = {"code": failure.code, "message": failure.message} if failure else None
    return json.dumps({
        "id": f"{batch_id}.{result.index}", "custom_id": result.custom_id,
        "response": response, "error": error,
    })  # fmt: skip


def is_crowded(text: bytes) -> bool:
    """Whether JSON has more values than any request has, and would take seconds to parse."""
    return sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES


def parsed(line: bytes) -> dict[str, Any]:
    """A line as a JSON object. Raises `InvalidParams`."""
    if is_crowded(line):
        raise InvalidParams("the line has more values than any request has")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise InvalidParams(f"the line is no JSON: {e}") from e
    if not isinstance(request, dict):
        raise InvalidParams("the line is not a JSON object")
    return request


def _task_of(request: dict[str, Any]) -> Task | None:
    url = request.get("url")
    return URLS.get(url) if isinstance(url, str) else None


def _custom_id(request: dict[str, Any], default: str, seen: set[str]) -> str:
    custom_id = request.get("custom_id", default)
    if not (isinstance(custom_id, str) and 1 <= len(custom_id) <= MAX_CUSTOM_ID):
        raise InvalidParams(f"custom_id is not a string of 1 to {MAX_CUSTOM_ID} characters")
    if custom_id in seen:
        raise InvalidParams(f"the custom_id {custom_id!r} was used in an earlier line")
    seen.add(custom_id)
    return custom_id
