"""Flickr30k (Young et al. 2014), in either of the forms it is handed around in.

DIR/results_20130124.token    1000092795.jpg#0<tab>Two young guys …
DIR/results.csv               1000092795.jpg| 0| Two young guys …     after a header line
DIR/flickr30k-images/*.jpg    (or flickr30k_images, images)
DIR/dataset_flickr30k.json    Karpathy's splits, used where present
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import CaptionedFiles, Entry, gathered, read_text, with_held_back
from crossmodal.errors import DataInvalid

TOKENS, CSV, KARPATHY = "results_20130124.token", "results.csv", "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images", "flickr30k_images/flickr30k_images")
TOKEN_LINE = re.compile(r"(?P<name>[^#\t]+)#\d+\t(?P<caption>.*)")
# In one line of the file that is handed around, the second bar is missing.
CSV_LINE = re.compile(r"(?P<name>[^|]+?)\s*\|\s*\d+\s*[|\s]\s*(?P<caption>.*)")


def open_flickr30k(folder: Path) -> CaptionedFiles:
    """The data set in `folder`. Raises `DataInvalid`, saying which file is missing or wrong."""
    if (folder / TOKENS).is_file():
        captions, problems = _read_lines(folder / TOKENS, TOKEN_LINE, header=False)
    elif (folder / CSV).is_file():
        captions, problems = _read_lines(folder / CSV, CSV_LINE, header=True)
    else:
        raise DataInvalid(f"{folder} is not Flickr30k: there is neither {TOKENS} nor {CSV} in it")
    entries, skipped = gathered(captions, [folder / name for name in FOLDERS])
    splits = with_held_back(entries)
    if (folder / KARPATHY).is_file():
        splits = _split(entries, _karpathy(folder / KARPATHY))
    return CaptionedFiles(f"flickr30k:{folder}", splits, problems + skipped)


def _read_lines(
    path: Path, line_form: "re.Pattern[str]", header: bool
) -> tuple[dict[str, list[str]], list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    problems = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if found := line_form.fullmatch(line.rstrip("\r")):
            captions[found["name"].strip()].append(found["caption"])
        elif line.strip() and not (header and number == 1):
            problems.append(f"{path.name}, line {number}: not a caption: {line[:60]!r}")
    return captions, problems


def _karpathy(path: Path) -> dict[str, str]:
    """The split of each picture; `restval` is for training too."""
    try:
        images = json.loads(read_text(path))["images"]
        return {i["filename"]: TRAIN if i["split"] == "restval" else i["split"] for i in images}
    except (ValueError, LookupError, TypeError) as e:
        raise DataInvalid(f"{path} is not Karpathy's split file: {type(e).__name__}: {e}") from e


def _split(entries: list[Entry], split_of: dict[str, str]) -> dict[str, list[Entry]]:
    splits: dict[str, list[Entry]] = {TRAIN: [], "val": [], "test": []}
    for entry in entries:
        splits.setdefault(split_of.get(entry.path.name, TRAIN), []).append(entry)
    return splits
