"""A plain script for one picture or caption: load all models, make it, save it.

python benchmarks/seed_script.py txt2img "a red circle" out.png
python benchmarks/seed_script.py img2txt picture.png out.txt
"""

import sys
from pathlib import Path

from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.captioning import BundleCaptioning
from crossmodal.models.contract import Batch, Picture, Request
from crossmodal.models.drawing import BundleDrawing
from crossmodal.settings import load_settings
from crossmodal.vision.decode import decode
from crossmodal.vision.encode import encode_png
from crossmodal.vision.preprocess import fit_square


def main(task: str, given: str, out: Path) -> None:
    """Load all models, run one, write a file."""
    bundle, draw, describe = load_settings().bundle, BundleDrawing(), BundleCaptioning()
    draw.load(bundle, "cpu")
    describe.load(bundle, "cpu")
    if task == "txt2img":
        [picture] = draw.run(Batch([Request(Txt2ImgParams(prompt=given), seed=1)]))
        assert isinstance(picture, Picture)
        out.write_bytes(encode_png(picture.pixels, given))
        return
    image = fit_square(decode(Path(given).read_bytes(), 10**8), describe.side or 0)
    params = Img2TxtParams(image=BlobRef(key="-"))
    [captions] = describe.run(Batch([Request(params, image=image)]))
    assert isinstance(captions, list)
    out.write_text(captions[0].text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
