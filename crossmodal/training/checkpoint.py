"""Checkpoints: the state of an unfinished run on disk, to resume it exactly."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from crossmodal.errors import CheckpointMismatch
from crossmodal.files import write_whole


@dataclass
class Progress:
    """The progress of a run: steps, seconds, moving averages of metrics, skipped pictures."""

    step: int = 0
    elapsed_s: float = 0.0
    averages: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def refuse_unfinished(path: Path) -> None:
    """Raise `CheckpointMismatch` if the checkpoint of an unfinished run exists at `path`."""
    if path.is_file():
        raise CheckpointMismatch(
            f"{path} belongs to an unfinished run: resume it with --resume, or remove the file to "
            "start over"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A file with weights, optimizers, random states and progress of the run `identity`."""

    path: Path
    identity: dict[str, Any]

    def save(
        self,
        modules: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        progress: Progress,
    ) -> None:
        """Replace the file atomically. Raises `OutputNotWritable`."""
        content = {
            "identity": self.identity,
            "modules": [m.state_dict() for m in modules],
            "optimizers": [o.state_dict() for o in optimizers],
            "progress": vars(progress),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_whole(self.path, file.getvalue())

    def restore(
        self, modules: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]
    ) -> Progress:
        """Restore weights, optimizers and random states. Raises `CheckpointMismatch`."""
        content = self._read()
        try:
            return self._put_back(content, modules, optimizers)
        except (RuntimeError, ValueError, LookupError, TypeError) as e:
            raise self._unreadable(e) from e

    def _put_back(
        self,
        content: dict[str, Any],
        modules: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> Progress:
        for module, state in zip(modules, content["modules"], strict=True):
            module.load_state_dict(state)
        for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and content["random_cuda"] is not None:
            torch.cuda.set_rng_state(content["random_cuda"])
        return Progress(**content["progress"])

    def _read(self) -> dict[str, Any]:
        try:
            # Tensors and plain values only, so that a hostile checkpoint cannot run code.
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs = content["identity"]
        except (
            OSError,
            RuntimeError,
            EOFError,
            LookupError,
            TypeError,
            ValueError,
            UnpicklingError,
        ) as e:  # raised by torch.load on damaged files
            raise self._unreadable(e) from e
        differing = [k for k in self.identity if self.identity[k] != theirs.get(k)]
        if differing:
            raise CheckpointMismatch(
                f"{self.path} belongs to another run: "
                + ", ".join(self._differing(k, theirs.get(k)) for k in differing)
                + ". Resume it with its own options, or remove the file to start over"
            )
        return content

    def _differing(self, key: str, theirs: object) -> str:
        if key == "content":
            return "its data set had other captions or pictures"
        return f"{key} {theirs!r}, not {self.identity[key]!r}"

    def _unreadable(self, error: Exception) -> CheckpointMismatch:
        why = str(error).partition("\n")[0] or type(error).__name__
        return CheckpointMismatch(
            f"{self.path} cannot be read as a checkpoint ({why}): remove the file to start over"
        )
