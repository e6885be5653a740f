"""Data sets by their command-line name."""

from collections.abc import Callable
from pathlib import Path

from crossmodal.datasets.base import Dataset
from crossmodal.datasets.coco import open_coco
from crossmodal.datasets.flickr30k import open_flickr30k
from crossmodal.datasets.scenes import Scenes
from crossmodal.errors import InvalidSetting

SCENE_SIDE = 128
IN_FOLDERS: dict[str, Callable[[Path], Dataset]] = {"coco": open_coco, "flickr30k": open_flickr30k}


def open_dataset(name: str, side: int = 0) -> Dataset:
    """Open `scenes`, `coco:DIR` or `flickr30k:DIR`. Raises `InvalidSetting` or `InvalidData`.

    Rendered pictures have at least `side` pixels along a side.
    """
    kind, _, folder = name.partition(":")
    if name == "scenes":
        return Scenes(max(side, SCENE_SIDE))
    if kind in IN_FOLDERS and folder:
        return IN_FOLDERS[kind](Path(folder).expanduser())
    raise InvalidSetting(
        f"--dataset {name!r}: choose scenes, " + ", ".join(f"{k}:DIR" for k in IN_FOLDERS)
    )
