"""COCO captions in the official layout (https://cocodataset.org/#format-data).

    DIR/annotations/captions_train2017.json   {"images": [{"id", "file_name", …}],
    DIR/annotations/captions_val2017.json      "annotations": [{"image_id", "caption", …}]}
    DIR/train2017/*.jpg  DIR/val2017/*.jpg    (or below DIR/images, or in it)
    DIR/dataset_coco.json                     Karpathy's splits, if present (or in
                                              DIR/annotations); its captions, if no others

Files of 2014 are read if those of 2017 are missing.
"""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import CaptionedFiles, gathered, read_text, with_held_back
from crossmodal.datasets.karpathy import Listed, read_karpathy
from crossmodal.datasets.pictures import Named
from crossmodal.errors import InvalidData, described

YEARS = ("2017", "2014")
HALVES = (TRAIN, "val")  # COCO's own splits
KARPATHY = "dataset_coco.json"

Numbered = tuple[Any, Named]  # COCO's image id and its picture


def open_coco(folder: Path) -> CaptionedFiles:
    """Open the data set in `folder`. Raises `InvalidData`, naming the missing or bad file."""
    year = next((y for y in YEARS if _annotations(folder, TRAIN, y).is_file()), None)
    places = (folder / KARPATHY, folder / "annotations" / KARPATHY)
    karpathy = next((path for path in places if path.is_file()), None)
    if year is None and karpathy is None:
        raise InvalidData(
            f"{folder} is not laid out as COCO: there is no {_annotations(folder, TRAIN, '2017')}"
        )
    listed = read_karpathy(karpathy) if karpathy else []
    year = year or _year_of_pictures(folder)
    pictures, problems = _read_halves(folder, year)
    named = _split_anew(pictures, listed) if pictures else _of_karpathy(listed, year)
    everywhere = dict.fromkeys(name for half in HALVES for name in _folders(half, year))
    splits, skipped = gathered(folder, named, everywhere)
    if not any(entries for split, entries in splits.items() if split != TRAIN):
        splits = with_held_back(splits[TRAIN])
    return CaptionedFiles("coco", folder, splits, problems + skipped)


def _annotations(folder: Path, half: str, year: str) -> Path:
    return folder / "annotations" / f"captions_{half}{year}.json"


def _folders(half: str, year: str) -> tuple[str, ...]:
    return f"{half}{year}", f"images/{half}{year}", "images"


def _year_of_pictures(folder: Path) -> str:
    there = (y for y in YEARS for name in _folders(TRAIN, y)[:2] if (folder / name).is_dir())
    return next(there, YEARS[-1])


def _read_halves(folder: Path, year: str) -> tuple[list[Numbered], list[str]]:
    pictures, problems = [], []
    for half in HALVES:
        path = _annotations(folder, half, year)
        if path.is_file():
            found, skipped = _read_half(path, half, year)
            pictures += found
            problems += skipped
    return pictures, problems


def _read_half(path: Path, half: str, year: str) -> tuple[list[Numbered], list[str]]:
    try:
        found = json.loads(read_text(path))
        names, faults = _names(found["images"])
        captions, problems = _captions(names, found["annotations"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        raise InvalidData(f"{path} is not a COCO caption file: {described(e)}") from e
    folders = _folders(half, year)
    numbers = {name: number for number, name in reversed(names.items())}
    return [
        (numbers[name], Named(half, name, tuple(texts), folders))
        for name, texts in captions.items()
    ], faults + problems


def _names(images: list[dict[str, Any]]) -> tuple[dict[Any, str], list[str]]:
    """Return file names by image id, and the problems of images without a valid name."""
    names: dict[Any, str] = {}
    faults = {}
    for image in images:
        number, name = image["id"], image["file_name"]
        if not isinstance(name, str | int):
            faults[number] = f"image {number}: its file_name {json.dumps(name)[:60]} is not a name"
        elif names.setdefault(number, str(name)) != str(name):
            faults[number] = f"image {number}: it is listed as {names[number]} and as {name}"
    return {n: name for n, name in names.items() if n not in faults}, list(faults.values())


def _captions(
    names: dict[Any, str], annotations: list[dict[str, Any]]
) -> tuple[dict[str, list[str]], list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    problems = []
    for annotation in annotations:
        number, caption = annotation["image_id"], annotation["caption"]
        if number not in names:
            problems.append(f"image {number}: captioned, but not listed")
        elif caption is None or isinstance(caption, str):
            captions[names[number]].append(caption or "")
        else:
            problems.append(
                f"{names[number]}: its caption {json.dumps(caption)[:60]} is not a text"
            )
    return captions, list(dict.fromkeys(problems))


def _split_anew(pictures: list[Numbered], listed: list[Listed]) -> list[Named]:
    """Return COCO's pictures, in Karpathy's splits where he lists them."""
    split_of: dict[Any, str] = {one.name: one.split for one in listed}
    split_of |= {one.number: one.split for one in listed if one.number is not None}
    return [
        replace(one, split=split_of.get(number, split_of.get(Path(one.name).name, one.split)))
        for number, one in pictures
    ]


def _of_karpathy(listed: list[Listed], year: str) -> list[Named]:
    """Return Karpathy's pictures. His file names are those of 2014; in 2017, names are ids."""
    named = []
    for one in listed:
        half = "val" if one.folder.startswith("val") else TRAIN
        name = one.name
        if year != "2014" and one.number is not None:
            name = f"{one.number:012d}.jpg"
        named.append(Named(one.split, name, one.captions, _folders(half, year)))
    return named
