"""The protocol between a worker and its model host: msgpack maps, each behind its length.

Over one connection; "id" is a number that the worker counts up.

hello     {"hello": {…}}, a `HostInfo`: the host's first message
request   {"id", "op": "run", "task": …, "alone": bool, "bulk": bool,
           "requests": [{"params": {…}, "image": {"shape", "data"} | None}, …]}
          and if it is traced, "trace": its traceparent
cancel    {"id", "op": "cancel"}: the caller has gone; there is no reply
watch     {"id", "op": "watch", "on": bool}: whether previews are wanted of that request
notice    {"id", "on_device": how many requests are on the device}, when some of these go
          there, again when some go more than a second later, and when others join one alone
step      {"id", "step": [done, of]}: progress of a batch that some of these are in, now and then;
          while it is watched, at most once a second with "preview": a small JPEG file
reply     {"id", "ok": {…}} or {"id", "error": {"code", "message", "retryable"}}; "ok" is
          {"model", "bundle_version", "repeatable", "answers": [{…} or {"error": …}, …]}
answer    {"batch": [how many requests, seconds of waiting, seconds of inference]}, and of
          "images", "captions", "unknown_words", "suggestions" and "warnings" what is not empty

If the host dies, the notice tells the worker whether its request may be the cause. Pixels
travel as raw uint8 RGB. Nothing is pickled.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.registry import kind_named
from crossmodal.kinds.schema import class_by
from crossmodal.vision.fit import Fit

LENGTH = struct.Struct(">I")
MAX_FRAME = 256 * 2**20

Message = dict[str, Any]


@dataclass(frozen=True)
class HostInfo:
    """A host's hello: what it serves, and which pictures it takes.

    `params` are, by kind, the JSON schemas of what its models take.
    """

    model: str
    bundle_version: str
    device: str
    image_side: int
    pid: int
    image_is_square: bool = True
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fit(self) -> Fit:
        return Fit(self.image_side, self.image_is_square)

    def params_of(self, kind: Kind) -> type[ItemParams]:
        """Return the class that checks the params of a kind as its model takes them."""
        return self._classes.get(kind.name, kind.params)

    @cached_property
    def _classes(self) -> Mapping[str, type[ItemParams]]:
        return {name: class_by(kind_named(name), schema) for name, schema in self.params.items()}


class Answer(NamedTuple):
    """What a model made of one request, which model it was, and how its batch went (seconds)."""

    model: str
    bundle_version: str
    repeatable: Literal["exact", "close"] | None
    images: NDArray[np.uint8] | None
    captions: list[dict[str, Any]]
    unknown_words: list[str]
    suggestions: dict[str, str]
    warnings: list[str]
    batch_size: int
    batch_wait_s: float
    inference_s: float


def pack(message: Message) -> bytes:
    """Return one frame: four bytes of length, big-endian, then the msgpack map.

    Raises `ValueError` if it is over the limit.
    """
    body: bytes = msgpack.packb(message)
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes | memoryview) -> Message:
    """Return the map in a frame's body. Raises `ValueError` if it is none."""
    message = msgpack.unpackb(body)
    if not isinstance(message, dict):
        raise ValueError(f"a frame holds {type(message).__name__}, not a map")
    return message


def pack_pixels(pixels: NDArray[np.uint8] | None) -> Message | None:
    """Return an array as a map of its shape and bytes, shared with it if they are contiguous."""
    if pixels is None:
        return None
    return {"shape": list(pixels.shape), "data": np.ascontiguousarray(pixels).data}


def unpack_pixels(packed: Message | None) -> NDArray[np.uint8] | None:
    """Return the array that `pack_pixels` packed; read-only, it shares the message's bytes."""
    if packed is None:
        return None
    return np.frombuffer(packed["data"], np.uint8).reshape(packed["shape"])
