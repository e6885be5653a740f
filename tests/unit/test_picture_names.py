"""Which file a picture's name means: found however it is written, and never somebody else's."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from crossmodal.datasets.base import TRAIN
from crossmodal.datasets.files import CaptionedFiles
from crossmodal.datasets.registry import open_dataset
from crossmodal.errors import InvalidData
from tests.at_once import at_once

NFC, NFD = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))


def draw(folder: Path, files: Sequence[str]) -> None:
    """Pictures, each as wide as its number, so that they can be told apart."""
    for width, name in enumerate(files, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, 8)).save(folder / name, "JPEG")


def annotate(folder: Path, half: str, names: Sequence[str], year: str = "2017") -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    captions = [
        {"image_id": i, "caption": f"the {half} picture {name}"} for i, name in enumerate(names)
    ]
    path = folder / "annotations" / f"captions_{half}{year}.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))


def opened(folder: Path, kind: str = "coco") -> CaptionedFiles:
    data = open_dataset(f"{kind}:{folder}")
    assert isinstance(data, CaptionedFiles)
    return data


def pairs(data: CaptionedFiles, split: str) -> dict[str, str]:
    """The file that each caption has, below the data set's folder."""
    root = Path(data.name.partition(":")[2])
    return {e.captions[0]: e.path.relative_to(root).as_posix() for e in data.entries(split)}


def matched(folder: Path, name: str, files: Sequence[str]) -> str:
    """The file that is found for `name` beside a picture that certainly is."""
    draw(folder, [*files, "train2017/sure.jpg"])
    annotate(folder, TRAIN, [name, "sure.jpg"])
    data = opened(folder)
    found = pairs(data, TRAIN) | (pairs(data, "val") if data.judged else {})
    return found.get(f"the train picture {name}", "")


@at_once(
    "name, file",
    [
        ("1.jpg", "train2017/1.jpg"),
        ("1.jpg", "images/1.jpg"),
        ("1.jpg", "images/train2017/1.jpg"),
        ("1.jpg", "train2017/train2017/1.jpg"),
        ("1.jpg", "train2017/1.JPG"),
        ("1.JPG", "train2017/1.jpg"),
        ("1.jpeg", "train2017/1.jpg"),
        ("1", "train2017/1.jpg"),
        ("1.jpg", "train2017/1"),
        (NFC, f"train2017/{NFD}"),
        (NFD, f"train2017/{NFC}"),
        ("train2017\\1.jpg", "train2017/1.jpg"),
        ("a\\1.jpg", "train2017/a/1.jpg"),
        ("train2017/1.jpg", "train2017/1.jpg"),
        ("./train2017/1.jpg", "train2017/1.jpg"),
        ("/home/somebody/coco/train2017/1.jpg", "train2017/1.jpg"),
        ("C:\\coco\\train2017\\1.jpg", "train2017/1.jpg"),
        ("a/1.jpg", "train2017/a/1.jpg"),
        ("a/1.jpg", "train2017/1.jpg"),  # flattened, and there is no other 1.jpg
    ],
)
def test_a_picture_is_found_however_its_name_is_written(
    tmp_path: Path, name: str, file: str
) -> None:
    folder = tmp_path / str(abs(hash((name, file))))
    assert matched(folder, name, [file]) == file


@at_once(
    "name, files, right",
    [
        ("1.jpg", ["train2017/1.jpg", "train2017/a/1.jpg"], "train2017/1.jpg"),
        (
            "a/1.jpg",
            ["train2017/1.jpg", "train2017/b/1.jpg", "train2017/a/1.jpg"],
            "train2017/a/1.jpg",
        ),
        ("a/1.jpg", ["train2017/b/1.jpg"], ""),
        ("a/1.jpg", ["train2017/1.jpg", "train2017/b/1.jpg"], ""),
        ("1.jpg", ["train2017/a/1.jpg", "train2017/b/1.jpg"], ""),
        ("1.jpg", ["train2017/1.JPG", "train2017/1.Jpg"], ""),
        ("1.jpg", ["train2017/1.JPG", "train2017/1.jpg"], "train2017/1.jpg"),
        ("1.jpg", ["train2017/1.png"], ""),
        ("../secret/1.jpg", ["secret/1.jpg"], ""),
        ("1.jpg", ["test2017/1.jpg"], ""),
        ("1.jpg", ["val2017/1.jpg"], ""),
        ("000000000001.jpg", ["val2017/000000000001.jpg"], "val2017/000000000001.jpg"),
    ],
)
def test_where_several_files_could_be_meant_it_is_the_right_one_or_none(
    tmp_path: Path, name: str, files: list[str], right: str
) -> None:
    folder = tmp_path / str(abs(hash((name, *files))))
    assert matched(folder, name, files) == right


def test_pictures_of_one_base_name_keep_their_own_captions(tmp_path: Path) -> None:
    names = ["a/1.jpg", "b/1.jpg", "1.jpg"]
    draw(tmp_path, [f"train2017/{name}" for name in names])
    annotate(tmp_path, TRAIN, names)
    assert pairs(opened(tmp_path), TRAIN) | pairs(opened(tmp_path), "val") == {
        f"the train picture {name}": f"train2017/{name}" for name in names
    }


def test_two_names_do_not_share_a_file_that_neither_names_exactly(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg", "train2017/sure.jpg"])
    annotate(tmp_path, TRAIN, ["a/1.jpg", "b/1.jpg", "sure.jpg"])
    data = opened(tmp_path)
    assert list(pairs(data, TRAIN)) == ["the train picture sure.jpg"]
    assert len(data.problems) == 2


def test_the_halves_do_not_take_each_others_pictures(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/2.jpg", "val2017/1.JPG", "val2017/3.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg", "2.jpg", "3.jpg"])
    annotate(tmp_path, "val", ["1.jpg", "3.jpg"])
    data = opened(tmp_path)
    assert pairs(data, TRAIN) == {"the train picture 2.jpg": "train2017/2.jpg"}
    assert pairs(data, "val") == {
        "the val picture 1.jpg": "val2017/1.JPG",
        "the val picture 3.jpg": "val2017/3.jpg",
    }


def test_pictures_to_train_on_may_lie_in_the_other_half(tmp_path: Path) -> None:
    draw(
        tmp_path,
        [
            "train2014/COCO_train2014_1.jpg",
            "val2014/COCO_val2014_2.jpg",
            "val2014/COCO_val2014_3.jpg",
        ],
    )
    annotate(tmp_path, TRAIN, ["COCO_train2014_1.jpg", "COCO_val2014_2.jpg"], "2014")
    annotate(tmp_path, "val", ["COCO_val2014_3.jpg"], "2014")
    data = opened(tmp_path)
    assert (data.size(TRAIN), data.size("val"), data.problems) == (2, 1, ())


def test_a_number_with_two_names_is_nobodys(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg", "train2017/2.jpg", "train2017/3.jpg"])
    images = [
        {"id": 1, "file_name": "1.jpg"},
        {"id": 1, "file_name": "2.jpg"},
        {"id": 3, "file_name": "3.jpg"},
    ]
    captions = [{"image_id": 1, "caption": "a dog"}, {"image_id": 3, "caption": "a cat"}]
    annotate(tmp_path, TRAIN, [])
    (tmp_path / "annotations" / "captions_train2017.json").write_text(
        json.dumps({"images": images, "annotations": captions})
    )
    data = opened(tmp_path)
    assert pairs(data, TRAIN) == {"a cat": "train2017/3.jpg"}
    assert "image 1: it is listed as 1.jpg and as 2.jpg" in data.problems


@at_once("name", [None, ["1.jpg"], {"name": "1.jpg"}, 1.5])
def test_a_name_that_is_no_text_is_named_and_left_out(tmp_path: Path, name: object) -> None:
    draw(tmp_path, ["train2017/1.jpg", "train2017/2.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg", "2.jpg"])
    path = tmp_path / "annotations" / "captions_train2017.json"
    found = json.loads(path.read_text())
    found["images"][1]["file_name"] = name
    path.write_text(json.dumps(found))
    assert f"image 1: its file_name {json.dumps(name)} is not a name" in opened(tmp_path).problems


NOT_KARPATHYS: list[object] = [
    5,
    [5],
    [{"filename": "1.jpg"}],
    [{"filename": "1.jpg", "split": "train", "cocoid": "x"}],
    [{"filename": "1.jpg", "split": [], "sentences": [5]}],
]


@at_once("images", NOT_KARPATHYS)
def test_a_file_that_is_not_karpathys_is_refused(tmp_path: Path, images: object) -> None:
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    with pytest.raises(InvalidData, match="is not Karpathy's split file"):
        open_dataset(f"coco:{tmp_path}")


def test_half_of_a_surrogate_pair_in_a_caption_is_replaced(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg"])
    path = tmp_path / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("the train", "the \\ud83d train"))
    assert list(opened(tmp_path).texts(TRAIN, 1)) == ["the ? train picture 1.jpg"]


@at_once("caption", [5, 5.5, True, ["a dog"], {"text": "a dog"}])
def test_a_caption_that_is_no_text_is_named_and_left_out(tmp_path: Path, caption: object) -> None:
    draw(tmp_path, ["train2017/1.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg"])
    path = tmp_path / "annotations" / "captions_train2017.json"
    found = json.loads(path.read_text())
    found["annotations"].append({"image_id": 0, "caption": caption})
    path.write_text(json.dumps(found))
    [problem] = opened(tmp_path).problems
    assert problem == f"1.jpg: its caption {json.dumps(caption)} is not a text"


def test_what_is_missing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg", "images/x.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg", "2.jpg"])
    assert opened(tmp_path).problems == ("2.jpg: the picture is missing from train2017, images",)


def test_where_there_is_no_folder_its_names_are_said(tmp_path: Path) -> None:
    annotate(tmp_path, TRAIN, ["1.jpg"])
    with pytest.raises(InvalidData, match=r"has no train2017 or images/train2017 or images"):
        opened(tmp_path)


def test_a_link_that_leads_nowhere_is_no_picture(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg"])
    (tmp_path / "train2017" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    annotate(tmp_path, TRAIN, ["1.jpg", "2.jpg"])
    assert opened(tmp_path).problems == ("2.jpg: the picture is missing from train2017",)


def test_folders_that_link_to_themselves_are_read_once(tmp_path: Path) -> None:
    draw(tmp_path, ["elsewhere/1.jpg"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train2017").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    annotate(tmp_path / "data", TRAIN, ["1.jpg"])
    assert opened(tmp_path / "data").size(TRAIN) == 1


# -- Karpathy's files ------------------------------------------------------------------------


def karpathy(path: Path, images: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"sentences": [{"raw": f"picture {i}"}], **image} for i, image in enumerate(images)]
    path.write_text(json.dumps({"images": listed}))


def coco_images() -> list[dict[str, object]]:
    splits = {1: ("train", "train"), 2: ("val", "restval"), 3: ("val", "val"), 4: ("val", "test")}
    return [
        {
            "filename": f"COCO_{half}2014_{n:012d}.jpg",
            "filepath": f"{half}2014",
            "cocoid": n,
            "split": split,
        }
        for n, (half, split) in splits.items()
    ]


@at_once("place", ["dataset_coco.json", "annotations/dataset_coco.json"])
def test_karpathys_file_gives_coco_its_splits(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place.replace("/", "-")
    images = coco_images()
    names = [f"{image['filepath']}/{image['filename']}" for image in images]
    draw(folder, names)
    annotate(folder, TRAIN, [Path(names[0]).name], "2014")
    annotate(folder, "val", [Path(name).name for name in names[1:]], "2014")
    karpathy(folder / place, [image | {"sentences": [], "cocoid": None} for image in images])
    data = opened(folder)
    assert [data.size(split) for split in (TRAIN, "val", "test")] == [2, 1, 1]
    assert data.problems == ()


@at_once("year", ["2014", "2017"])
def test_karpathys_coco_is_enough_alone(tmp_path: Path, year: str) -> None:
    folder = tmp_path / year
    images = coco_images()
    names = [
        f"{i['filepath']}/{i['filename']}"
        if year == "2014"
        else f"train2017/{i['cocoid']:012d}.jpg"
        for i in images
    ]
    draw(folder, names)
    karpathy(folder / "dataset_coco.json", images)
    data = opened(folder)
    assert pairs(data, TRAIN) == {"picture 0": names[0], "picture 1": names[1]}
    assert pairs(data, "val") | pairs(data, "test") == {
        "picture 2": names[2],
        "picture 3": names[3],
    }


def test_karpathys_flickr30k_is_enough_alone(tmp_path: Path) -> None:
    draw(tmp_path, ["flickr30k-images/1.jpg", "flickr30k-images/2.jpg"])
    images = [{"filename": "1.jpg", "split": "train"}, {"filename": "2.jpg", "split": "test"}]
    karpathy(tmp_path / "dataset_flickr30k.json", images)
    data = opened(tmp_path, "flickr30k")
    assert pairs(data, TRAIN) == {"picture 0": "flickr30k-images/1.jpg"}
    assert data.judged == ("test",)


# -- a data set is its content ---------------------------------------------------------------


def test_a_data_set_is_the_same_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "one", ["train2017/1.jpg", "train2017/2.jpg"])
    annotate(tmp_path / "one", TRAIN, ["1.jpg", "2.jpg"])
    before = opened(tmp_path / "one").digest
    (tmp_path / "one").rename(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    assert opened(Path("two")).digest == before
    assert opened(Path("two")).name == f"coco:{tmp_path / 'two'}"


def test_a_changed_caption_makes_another_data_set(tmp_path: Path) -> None:
    draw(tmp_path, ["train2017/1.jpg"])
    annotate(tmp_path, TRAIN, ["1.jpg"])
    before = opened(tmp_path).digest
    path = tmp_path / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("the train", "one train"))
    assert opened(tmp_path).digest != before
