"""What a device serves, as its supervisor tells the Celery worker, and what that answers.

In the folder of the supervisor, for a device that is called `cpu`:

    cpu.models      all models that it may serve, and the socket of each; written once
    cpu.wanted      those that are to be loaded; written by the worker, obeyed by the supervisor
    cpu.sock        where the host of the first one listens, once that is loaded and warm
    cpu.json        what the host has said of it
    cpu.failure     why the host has ended while it loaded
    cpu.broken      the same, once no more is tried
    cpu-1.sock …    those of the second one
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from crossmodal.files import write_whole
from crossmodal.jobs.record import Failure, ModelInfo


class ServedModel(BaseModel):
    """A model that a device may serve, from these queues.

    `size` is that of its weights' files, `needs` what it may use of the device's memory, in bytes.
    """

    model_config = ConfigDict(frozen=True)

    info: ModelInfo
    socket: Path
    folder: Path
    queues: tuple[str, ...] = ()
    size: int = 0
    needs: int = 0
    is_pinned: bool = False

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def is_loaded(self) -> bool:
        """Whether its host listens."""
        return self.socket.is_socket()

    @property
    def failure(self) -> Failure | None:
        """Why it cannot be loaded. Where its folder is, is not for all to know who are told."""
        try:
            found = Failure.model_validate_json(broken_file(self.socket).read_bytes())
        except (OSError, ValidationError):
            return None
        message = found.message.replace(str(self.folder), self.folder.name)
        return found.model_copy(update={"message": message})

    def said(self) -> ModelInfo:
        """All that is known of it: what its host has said, where it has."""
        try:
            told = ModelInfo.model_validate_json(info_file(self.socket).read_bytes())
        except (OSError, ValidationError):
            return self.info
        own = self.info.model_copy(update={"kinds": self.info.kinds | told.kinds})
        return told.model_copy(
            update={
                "name": own.name,
                "kinds": own.kinds,
                "default_for": own.default_for,
                "aliases": own.aliases,
                "description": own.description,
                "format": own.format,
            }
        )


class _Device(BaseModel):
    """What a device may serve, and the bytes that its models may use together."""

    name: str
    models: list[ServedModel]
    room: int


@dataclass(frozen=True)
class Serving:
    """The files by which a supervisor and the worker of a device agree."""

    folder: Path
    slug: str

    @property
    def models_file(self) -> Path:
        return self.folder / f"{self.slug}.models"

    @classmethod
    def of_file(cls, models_file: Path) -> Self:
        return cls(models_file.parent, models_file.stem)

    def write(self, device: str, models: Sequence[ServedModel], room: int) -> None:
        """Say once what a device may serve, and the bytes that models may use together."""
        told = _Device(name=device, models=list(models), room=room)
        write_whole(self.models_file, told.model_dump_json())

    def read_models(self) -> list[ServedModel]:
        """What it may serve."""
        return self._device.models

    @property
    def device(self) -> str:
        """What the device is called."""
        return self._device.name

    @property
    def room(self) -> int:
        """The bytes that models may use together."""
        return self._device.room

    @cached_property
    def _device(self) -> _Device:
        return _Device.model_validate_json(self.models_file.read_bytes())

    def want(self, names: Iterable[str]) -> None:
        """Say which models are to be loaded."""
        write_whole(self._wanted, json.dumps(sorted(names)))

    @property
    def wanted(self) -> set[str]:
        """Those that are to be loaded."""
        try:
            return set(json.loads(self._wanted.read_bytes()))
        except (OSError, ValueError):
            return set()

    @property
    def _wanted(self) -> Path:
        return self.folder / f"{self.slug}.wanted"


def served_alone(socket: Path | None) -> dict[str, str]:
    """What a model host that nobody supervises has said of itself, if it has."""
    try:
        said = json.loads(info_file(socket).read_bytes()) if socket else {}
    except (OSError, ValueError):  # it is starting, or there is none
        return {}
    names = {"device": "device", "model": "name", "bundle_version": "version"}
    return {ours: said[theirs] for ours, theirs in names.items() if theirs in said}


def info_file(socket: Path) -> Path:
    """Where a model host says what it serves, beside its socket."""
    return socket.with_suffix(".json")


def failure_file(socket: Path) -> Path:
    """Where a model host says why it cannot serve."""
    return socket.with_suffix(".failure")


def broken_file(socket: Path) -> Path:
    """Where the supervisor says why it has given a model up."""
    return socket.with_suffix(".broken")
