"""The memory that decoding needs, predicted and measured: python -m tests.decode_memory FILE…

Prints [bytes predicted from the header, bytes measured] for each file, one per line.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from crossmodal.vision.decode import PictureFile
from crossmodal.vision.preprocess import fit_square

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def memory(field: str) -> int:
    """Return this process's memory in bytes: current (VmRSS) or peak (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


def measured(path: Path) -> list[int]:
    """Return the predicted and the measured bytes for a file."""
    data = path.read_bytes()  # read first, so that the file itself is not measured
    picture = PictureFile(data, 10**8)
    CLEAR_REFS.write_text(RESET_PEAK)
    before = memory("VmRSS")
    fit_square(picture.pixels(), 96)
    return [picture.need, memory("VmHWM") - before]


def main() -> None:
    fit_square(np.zeros((300, 300, 3), np.uint8), 96)  # warm up: one-time setup
    for path in map(Path, sys.argv[1:]):
        print(json.dumps(measured(path)))


if __name__ == "__main__":
    main()
