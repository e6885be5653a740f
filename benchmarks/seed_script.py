"""One picture or one caption, the straightforward way: load everything, make it, save it.

python benchmarks/seed_script.py txt2img "a red circle" out.png
python benchmarks/seed_script.py img2txt picture.png out.txt
"""

import sys
from pathlib import Path

import torch

from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.bundle import open_bundle
from crossmodal.pipelines.base import Described, Drawn, Request
from crossmodal.pipelines.img2txt import Img2TxtPipeline
from crossmodal.pipelines.txt2img import Txt2ImgPipeline
from crossmodal.settings import load_settings
from crossmodal.vision.decode import decode
from crossmodal.vision.encode import encode_png
from crossmodal.vision.preprocess import fit_square


def main(task: str, given: str, out: Path) -> None:
    """Load all models, run one, write a file."""
    bundle, device = open_bundle(load_settings().bundle), torch.device("cpu")
    draw, describe = Txt2ImgPipeline(bundle, device), Img2TxtPipeline(bundle, device)
    if task == "txt2img":
        [outcome] = draw.run([Request(Txt2ImgParams(prompt=given, seed=1))])
        assert isinstance(outcome, Drawn)
        out.write_bytes(encode_png(outcome.images[0], given))
        return
    image = fit_square(decode(Path(given).read_bytes(), 10**8), describe.side)
    [outcome] = describe.run([Request(Img2TxtParams(image=BlobRef(key="-")), image)])
    assert isinstance(outcome, Described)
    out.write_text(outcome.captions[0].text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
