"""COCO and Flickr30k as they come: on small files in their formats, with their oddities."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from crossmodal.datasets.base import TRAIN, examples
from crossmodal.datasets.files import CaptionedFiles, summary
from crossmodal.datasets.registry import open_dataset
from crossmodal.errors import CrossmodalError, InvalidData, InvalidSetting
from tests.at_once import at_once

DATA = Path(__file__).parents[1] / "data"
NAMES = ("coco:coco", "flickr30k:flickr30k", "flickr30k:flickr30k-csv")


def opened(name: str) -> CaptionedFiles:
    kind, _, folder = name.partition(":")
    data = open_dataset(f"{kind}:{DATA / folder}")
    assert isinstance(data, CaptionedFiles)
    return data


@pytest.mark.parametrize("name", NAMES)
def test_every_readable_picture_is_rgb_with_clean_captions(name: str) -> None:
    data = opened(name)
    found = [e for split in (TRAIN, *data.judged) for e in examples(data, split, 1)]
    total = sum(data.size(split) or 0 for split in (TRAIN, *data.judged))
    assert len(found) == total - 1  # one is broken
    for example in found:
        assert example.image.dtype == np.uint8
        assert example.image.shape[2] == 3
        texts = [c.text for c in example.captions]
        assert texts
        assert all(t == " ".join(t.split()) for t in texts)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_picture_is_named_when_it_is_met(name: str) -> None:
    data = opened(name)
    met = []
    for split in (TRAIN, *data.judged):
        for index in range(data.size(split) or 0):
            try:
                data.example(split, 1, index)
            except InvalidData as e:
                met.append(str(e))
    assert len(met) == 1
    assert ".jpg: the image is a JPEG file that cannot be decoded" in met[0]


@at_once("name", NAMES)
def test_a_missing_picture_is_counted_and_named(name: str) -> None:
    assert any("the picture is missing" in problem for problem in opened(name).problems)


def test_captions_of_pictures_that_are_not_listed_are_named() -> None:
    assert "image 999999: captioned, but not listed" in opened("coco:coco").problems


def test_repeated_and_empty_captions_are_left_out() -> None:
    data = opened("coco:coco")
    captions = {e.path.name: e.captions for e in data.entries(TRAIN)}
    assert len(captions["000000000000.jpg"]) == 2  # a third one repeats the first in capitals
    assert "a naïve “café” scene — with tabs" in captions["000000000001.jpg"]
    assert len(captions["000000000002.jpg"]) == 2  # two more say nothing


@pytest.mark.parametrize("name", NAMES)
def test_each_pass_shows_each_picture_once_in_another_order(name: str) -> None:
    data = opened(name)
    size = data.size(TRAIN) or 0

    def first_captions(start: int) -> list[str]:
        found = []
        for index in range(start, start + size):
            try:
                found.append(data.example(TRAIN, 1, index).captions[0].text)
            except InvalidData:
                found.append("broken")
        return found

    one, two = first_captions(0), first_captions(size)
    assert sorted(one) == sorted(two)
    assert one != two


def test_karpathys_splits_are_kept_and_restval_is_trained_on() -> None:
    data = opened("flickr30k:flickr30k")
    assert data.judged == ("val", "test")
    assert [data.size(s) for s in (TRAIN, "val", "test")] == [7, 2, 2]


def test_without_splits_the_same_pictures_are_held_back_each_time() -> None:
    a, b = (list(opened("flickr30k:flickr30k-csv").texts("val", s)) for s in (1, 2))
    assert a == b
    assert not set(a) & set(opened("flickr30k:flickr30k-csv").texts(TRAIN, 1))


def test_the_line_that_lacks_a_bar_is_read() -> None:
    lines = (DATA / "flickr30k-csv" / "results.csv").read_text().splitlines()
    odd = next(line for line in lines[1:] if line.count("|") == 1)
    data = opened("flickr30k:flickr30k-csv")
    said = {t for split in (TRAIN, "val") for t in data.texts(split, 1)}
    assert odd.split("0   ")[1] in said


def test_a_line_that_is_no_caption_is_named(tmp_path: Path) -> None:
    shutil.copytree(DATA / "flickr30k", tmp_path / "f")
    with (tmp_path / "f" / "results_20130124.token").open("a") as file:
        file.write("no tabulator here\n")
    data = open_dataset(f"flickr30k:{tmp_path / 'f'}")
    assert any("not a caption: 'no tabulator here'" in p for p in data.problems)


def test_2014_is_read_where_2017_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    shutil.copytree(DATA / "coco", folder)
    for path in (*folder.glob("annotations/*"), folder / "train2017", folder / "val2017"):
        path.rename(path.with_name(path.name.replace("2017", "2014")))
    assert open_dataset(f"coco:{folder}").size(TRAIN) == opened("coco:coco").size(TRAIN)


def test_a_coco_without_val_holds_some_back(tmp_path: Path) -> None:
    shutil.copytree(DATA / "coco", tmp_path / "coco")
    (tmp_path / "coco" / "annotations" / "captions_val2017.json").unlink()
    data = open_dataset(f"coco:{tmp_path / 'coco'}")
    assert data.judged == ("val",)
    assert (data.size(TRAIN), data.size("val")) == (12, 1)


@at_once(
    "name, code",
    [
        ("mnist", "invalid_setting"),
        ("coco", "invalid_setting"),
        ("coco:", "invalid_setting"),
        ("coco:/nowhere", "data_invalid"),
        ("flickr30k:/nowhere", "data_invalid"),
        (f"flickr30k:{DATA / 'coco'}", "data_invalid"),
    ],
)
def test_what_is_no_data_set_is_refused_with_a_reason(name: str, code: str) -> None:
    with pytest.raises(CrossmodalError) as refused:
        open_dataset(name)
    assert refused.value.code == code
    assert isinstance(refused.value, InvalidSetting | InvalidData)


@at_once(
    "text",
    [
        "",
        "[]",
        "{}",
        "not json",
        '{"images": 3, "annotations": []}',
        '{"images": [], "annotations": []}',
        '{"images": [{"id": 1}], "annotations": []}',
    ],
)
def test_a_broken_annotation_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text(text)
    with pytest.raises(InvalidData):
        open_dataset(f"coco:{tmp_path}")


def test_a_data_set_whose_pictures_are_all_missing_says_so(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    listed = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a dog"}],
    }
    (tmp_path / "annotations" / "captions_train2017.json").write_text(json.dumps(listed))
    with pytest.raises(InvalidData, match=r"1 skipped: a\.jpg: the picture is missing"):
        open_dataset(f"coco:{tmp_path}")


def test_a_summary_names_the_first_few() -> None:
    assert summary(["a", "b"]) == "2 skipped: a; b"
    assert summary([str(i) for i in range(9)]).endswith("… and 4 more")
