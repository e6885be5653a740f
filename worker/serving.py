"""The files through which the supervisor, the Celery worker and the model hosts of a device agree.

In the folder of the supervisor, for a device named `cpu`:

    cpu.models      all models that it may serve, and the socket of each; written once
    cpu.wanted      the models to load; written by the worker, read by the supervisor
    cpu.sock        the socket of the first model's host, once the model is loaded and warm
    cpu.json        what that host reports of its model
    cpu.failure     why that host ended while it loaded
    cpu.broken      the same, once the model is broken
    cpu-1.sock …    the same files of the second model
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

    `size` is that of its weight files, `needs` the device memory that it may use, both in bytes.
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
        """Why it cannot be loaded, without the path of its folder, which clients must not see."""
        try:
            found = Failure.model_validate_json(broken_file(self.socket).read_bytes())
        except (OSError, ValidationError):
            return None
        message = found.message.replace(str(self.folder), self.folder.name)
        return found.model_copy(update={"message": message})

    def said(self) -> ModelInfo:
        """Return its info, completed by what its host has reported."""
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
    """The models that a device may serve, and the bytes that they may use together."""

    name: str
    models: list[ServedModel]
    room: int


@dataclass(frozen=True)
class Serving:
    """The files by which the supervisor and the worker of a device agree."""

    folder: Path
    slug: str

    @property
    def models_file(self) -> Path:
        return self.folder / f"{self.slug}.models"

    @classmethod
    def of_file(cls, models_file: Path) -> Self:
        return cls(models_file.parent, models_file.stem)

    def write(self, device: str, models: Sequence[ServedModel], room: int) -> None:
        """Write, once, what a device may serve and the bytes that models may use together."""
        told = _Device(name=device, models=list(models), room=room)
        write_whole(self.models_file, told.model_dump_json())

    def read_models(self) -> list[ServedModel]:
        """Return the models that the device may serve."""
        return self._device.models

    @property
    def device(self) -> str:
        """The name of the device."""
        return self._device.name

    @property
    def room(self) -> int:
        """The bytes that models may use together."""
        return self._device.room

    @cached_property
    def _device(self) -> _Device:
        return _Device.model_validate_json(self.models_file.read_bytes())

    def want(self, names: Iterable[str]) -> None:
        """Set which models are to be loaded."""
        write_whole(self._wanted, json.dumps(sorted(names)))

    @property
    def wanted(self) -> set[str]:
        """The names of the models that are to be loaded."""
        try:
            return set(json.loads(self._wanted.read_bytes()))
        except (OSError, ValueError):
            return set()

    @property
    def _wanted(self) -> Path:
        return self.folder / f"{self.slug}.wanted"


def served_alone(socket: Path | None) -> dict[str, str]:
    """Return what a model host without a supervisor has reported of itself, if it has."""
    try:
        said = json.loads(info_file(socket).read_bytes()) if socket else {}
    except (OSError, ValueError):  # it is starting, or there is none
        return {}
    names = {"device": "device", "model": "name", "bundle_version": "version"}
    return {ours: said[theirs] for ours, theirs in names.items() if theirs in said}


def info_file(socket: Path) -> Path:
    """Return the file, beside its socket, in which a model host reports what it serves."""
    return socket.with_suffix(".json")


def failure_file(socket: Path) -> Path:
    """Return the file in which a model host reports why it cannot serve."""
    return socket.with_suffix(".failure")


def broken_file(socket: Path) -> Path:
    """Return the file in which the supervisor reports why a model is broken."""
    return socket.with_suffix(".broken")
