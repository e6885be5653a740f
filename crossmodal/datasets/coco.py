"""COCO captions in the official layout (https://cocodataset.org/#format-data).

    DIR/annotations/captions_train2017.json   {"images": [{"id", "file_name", …}],
    DIR/annotations/captions_val2017.json      "annotations": [{"image_id", "caption", …}]}
    DIR/train2017/*.jpg  DIR/val2017/*.jpg    (or below DIR/images, or in it)

2014 is read where 2017 is not there.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import CaptionedFiles, Entry, gathered, read_text, with_held_back
from crossmodal.errors import DataInvalid

YEARS = ("2017", "2014")


def open_coco(folder: Path) -> CaptionedFiles:
    """The data set in `folder`. Raises `DataInvalid`, saying which file is missing or wrong."""
    year = next((y for y in YEARS if _annotations(folder, TRAIN, y).is_file()), None)
    if year is None:
        raise DataInvalid(
            f"{folder} is not laid out as COCO: there is no {_annotations(folder, TRAIN, '2017')}"
        )
    splits, problems = {}, []
    for split in (TRAIN, "val"):
        if _annotations(folder, split, year).is_file():
            splits[split], skipped = _read_split(folder, split, year)
            problems += skipped
    if not splits.get("val"):
        splits = with_held_back(splits[TRAIN])
    return CaptionedFiles(f"coco:{folder}", splits, problems)


def _annotations(folder: Path, split: str, year: str) -> Path:
    return folder / "annotations" / f"captions_{split}{year}.json"


def _read_split(folder: Path, split: str, year: str) -> tuple[list[Entry], list[str]]:
    path = _annotations(folder, split, year)
    try:
        found = json.loads(read_text(path))
        names = {image["id"]: Path(image["file_name"]).name for image in found["images"]}
        captions, problems = _by_name(names, found["annotations"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        raise DataInvalid(f"{path} is not a COCO caption file: {type(e).__name__}: {e}") from e
    name = f"{split}{year}"
    entries, skipped = gathered(
        captions, (folder / "images", folder / "images" / name, folder / name)
    )
    return entries, problems + skipped


def _by_name(
    names: dict[Any, str], annotations: list[dict[str, Any]]
) -> tuple[dict[str, list[str]], list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    problems = []
    for annotation in annotations:
        if annotation["image_id"] in names:
            captions[names[annotation["image_id"]]].append(annotation["caption"] or "")
        else:
            problems.append(f"image {annotation['image_id']}: captioned, but not listed")
    return captions, list(dict.fromkeys(problems))
