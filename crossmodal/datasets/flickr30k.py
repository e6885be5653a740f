"""Flickr30k (Young et al. 2014), in each of its common layouts.

DIR/results_20130124.token    1000092795.jpg#0<tab>Two young guys …
DIR/results.csv               1000092795.jpg| 0| Two young guys …     after a header line
DIR/dataset_flickr30k.json    Karpathy's splits; its captions, if both above are missing
DIR/flickr30k-images/*.jpg    (or flickr30k_images, images)
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import CaptionedFiles, gathered, read_text, with_held_back
from crossmodal.datasets.karpathy import read_karpathy
from crossmodal.datasets.pictures import Named
from crossmodal.errors import InvalidData

TOKENS, CSV, KARPATHY = "results_20130124.token", "results.csv", "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
TOKEN_LINE = re.compile(r"(?P<name>[^#\t]+)#\d+\t(?P<caption>.*)")
# One line of the commonly distributed file lacks the second bar.
CSV_LINE = re.compile(r"(?P<name>[^|]+?)\s*\|\s*\d+\s*[|\s]\s*(?P<caption>.*)")

Captions = dict[str, list[str]]


def open_flickr30k(folder: Path) -> CaptionedFiles:
    """Open the data set in `folder`. Raises `InvalidData`, naming the missing or bad file."""
    listed = read_karpathy(folder / KARPATHY) if (folder / KARPATHY).is_file() else []
    if (folder / TOKENS).is_file():
        captions, problems = _read_lines(folder / TOKENS, TOKEN_LINE, header=False)
    elif (folder / CSV).is_file():
        captions, problems = _read_lines(folder / CSV, CSV_LINE, header=True)
    elif any(one.captions for one in listed):
        captions, problems = {one.name: list(one.captions) for one in listed}, []
    else:
        raise InvalidData(
            f"{folder} is not Flickr30k: it has neither {TOKENS} nor {CSV} nor {KARPATHY}"
        )
    named = _named(captions, {one.name: one.split for one in listed})
    splits, skipped = gathered(folder, named, FOLDERS)
    if not listed:
        splits = with_held_back(splits[TRAIN])
    return CaptionedFiles("flickr30k", folder, splits, problems + skipped)


def _named(captions: Captions, split_of: Mapping[str, str]) -> list[Named]:
    return [
        Named(split_of.get(name, TRAIN), name, tuple(texts), FOLDERS)
        for name, texts in captions.items()
    ]


def _read_lines(
    path: Path, line_form: "re.Pattern[str]", header: bool
) -> tuple[Captions, list[str]]:
    captions: Captions = defaultdict(list)
    problems = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if found := line_form.fullmatch(line.rstrip("\r")):
            captions[found["name"].strip()].append(found["caption"])
        elif line.strip() and not (header and number == 1):
            problems.append(f"{path.name}, line {number}: not a caption: {line[:60]!r}")
    return captions, problems
