"""Bundles for tests, derived from the shipped one."""

import json
from collections.abc import Sequence
from pathlib import Path

from crossmodal.networks.bundle import DRAWING, MANIFEST, Bundle, open_bundle, seal
from crossmodal.settings import SHIPPED_BUNDLE

THINGS = ("circle", "square", "triangle", "star")


def bundle_of_things(folder: Path, things: Sequence[str] = THINGS) -> Bundle:
    """Return the shipped bundle with this list of things it can draw; it may be empty."""
    shipped = open_bundle(SHIPPED_BUNDLE).manifest
    folder.mkdir(exist_ok=True)
    for file in SHIPPED_BUNDLE.iterdir():
        if file.is_file() and file.name not in (DRAWING, MANIFEST):
            (folder / file.name).symlink_to(file)
    config = json.loads((SHIPPED_BUNDLE / DRAWING).read_text())
    (folder / DRAWING).write_text(json.dumps(config | {"things": things}))
    return seal(folder, "scenes", shipped.dataset, shipped.training, shipped.quality)
