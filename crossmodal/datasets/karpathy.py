"""Karpathy's splits of COCO and Flickr30k (2014), which share one file format.

dataset_coco.json, dataset_flickr30k.json
    {"images": [{"filename", "filepath"?, "cocoid"?, "split", "sentences": [{"raw"}, …]}]}

The file holds the captions too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import read_text
from crossmodal.errors import InvalidData, described


@dataclass(frozen=True)
class Listed:
    """A picture in Karpathy's file; `number` is COCO's image id, `folder` is COCO's folder."""

    name: str
    split: str
    captions: tuple[str, ...]
    folder: str = ""
    number: int | None = None


def read_karpathy(path: Path) -> list[Listed]:
    """Return all pictures; `restval` counts as `train`. Raises `InvalidData`."""
    try:
        return [_listed(image) for image in json.loads(read_text(path))["images"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        raise InvalidData(f"{path} is not Karpathy's split file: {described(e)}") from e


def _listed(image: dict[str, Any]) -> Listed:
    number = image.get("cocoid")
    return Listed(
        str(image["filename"]),
        TRAIN if image["split"] == "restval" else str(image["split"]),
        tuple(str(sentence["raw"]) for sentence in image.get("sentences") or ()),
        str(image.get("filepath") or ""),
        None if number is None else int(number),
    )
