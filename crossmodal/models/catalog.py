"""What a folder holds, told by the file that says so, without loading anything."""

from pathlib import Path
from typing import NamedTuple

from crossmodal.models.contract import Model
from crossmodal.networks.bundle import open_bundle


class Found(NamedTuple):
    """The models of a folder, one a kind, which share a process; none of them is loaded."""

    folder: Path
    name: str
    version: str
    models: tuple[Model, ...]


def find(folder: Path) -> Found:
    """The models in a folder. Raises `BundleNotFound`, `BundleInvalid`."""
    from crossmodal.models.captioning import BundleCaptioning
    from crossmodal.models.drawing import BundleDrawing

    bundle = open_bundle(folder)
    return Found(folder, bundle.name, bundle.version, (BundleDrawing(), BundleCaptioning()))
