"""Makes the small data sets beside this file, in the formats that COCO and Flickr30k come in.

    python tests/data/make.py

The pictures are rendered; the oddities are those of the real files: greyscale and CMYK
pictures, a broken and a missing one, duplicate captions, stray spaces, letters outside
ASCII, captions of pictures that are not there, and the line of Flickr30k's CSV that lacks
a bar.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.draw import draw
from crossmodal.datasets.scenes.grammar import describe

HERE = Path(__file__).parent
SIZES = ((128, 96), (96, 128), (120, 120))
MODES = {3: "L", 4: "CMYK"}
BROKEN, MISSING = 5, 6


def main() -> None:
    coco(HERE / "coco")
    token(HERE / "flickr30k")
    csv(HERE / "flickr30k-csv")


def pictures(folder: Path, names: list[str], first: int) -> list[list[str]]:
    """Files called `names`, and two captions of each; one is cut off, one is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for i, name in enumerate(names):
        scene, rng = Scenes().scene("train", 77, first + i)
        image = Image.fromarray(draw(scene, rng, 128)).convert(MODES.get(i, "RGB"))
        path = folder / name
        image.resize(SIZES[i % 3]).save(path, quality=85)
        if i == BROKEN:
            path.write_bytes(path.read_bytes()[:200])
        if i == MISSING:
            path.unlink()
        captions.append([describe(scene)[0], describe(scene, np.random.default_rng(i))[0]])
    return captions


def odd(captions: list[str], i: int) -> list[str]:
    """The same captions with what real files have in them."""
    if i == 0:
        return [f"  {captions[0]} .", captions[0].upper(), captions[1]]
    if i == 1:
        return [*captions, "a naïve “café” scene —  with\ttabs"]
    return captions if i != 2 else [*captions, "   ", "..."]


def coco(folder: Path) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count, first in (("train", 14, 0), ("val", 5, 100)):
        names = [f"{first + i:012d}.jpg" for i in range(count)]
        captions = pictures(folder / f"{split}2017", names, first)
        images = [
            {"id": first + i, "file_name": name, "width": 128, "height": 96, "license": 1}
            for i, name in enumerate(names)
        ]
        said = [(first + i, text) for i, texts in enumerate(captions) for text in odd(texts, i)]
        said.append((999_999, "a picture that is not in the list"))
        annotations = [
            {"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(said)
        ]
        path = folder / "annotations" / f"captions_{split}2017.json"
        whole = {
            "info": {"year": 2017},
            "licenses": [],
            "images": images,
            "annotations": annotations,
        }
        path.write_text(json.dumps(whole, indent=0) + "\n")


def token(folder: Path) -> None:
    names = [f"{1000092795 + 31 * i}.jpg" for i in range(12)]
    captions = pictures(folder / "flickr30k-images", names, 200)
    lines = [
        f"{name}#{n}\t{text.replace(chr(9), ' ')} ."
        for i, (name, texts) in enumerate(zip(names, captions, strict=True))
        for n, text in enumerate(odd(texts, i))
    ]
    (folder / "results_20130124.token").write_text("\n".join(lines) + "\n")
    splits = ["train"] * 7 + ["restval", "val", "val", "test", "test"]
    images = [
        {
            "filename": name,
            "split": split,
            "imgid": i,
            "sentids": [],
            "sentences": [{"raw": t, "tokens": t.split(), "imgid": i, "sentid": 0} for t in texts],
        }
        for i, (name, split, texts) in enumerate(zip(names, splits, captions, strict=True))
    ]
    whole = {"dataset": "flickr30k", "images": images}
    (folder / "dataset_flickr30k.json").write_text(json.dumps(whole, indent=0) + "\n")


def csv(folder: Path) -> None:
    names = [f"{2199200615 + 17 * i}.jpg" for i in range(8)]
    captions = pictures(folder / "flickr30k_images", names, 300)
    lines = [
        f"{name}| {n}| {text}"
        for name, texts in zip(names, captions, strict=True)
        for n, text in enumerate(texts)
    ]
    lines[2] = lines[2].replace("| 0| ", "| 0   ")  # as in the file that is handed around
    (folder / "results.csv").write_text(
        "\n".join(["image_name| comment_number| comment", *lines]) + "\n"
    )


if __name__ == "__main__":
    main()
