"""Bundles for tests, made of the one that is shipped."""

import json
from collections.abc import Sequence
from pathlib import Path

from crossmodal.networks.bundle import DRAWING, MANIFEST, Bundle, open_bundle, seal
from crossmodal.settings import SHIPPED_BUNDLE

THINGS = ("circle", "square", "triangle", "star")


def bundle_of_things(folder: Path, things: Sequence[str] = THINGS) -> Bundle:
    """The shipped bundle, as one that says what it can draw; none, as one that does not."""
    shipped = open_bundle(SHIPPED_BUNDLE).manifest
    folder.mkdir(exist_ok=True)
    for file in SHIPPED_BUNDLE.iterdir():
        if file.is_file() and file.name not in (DRAWING, MANIFEST):
            (folder / file.name).symlink_to(file)
    config = json.loads((SHIPPED_BUNDLE / DRAWING).read_text())
    (folder / DRAWING).write_text(json.dumps(config | {"things": things}))
    return seal(folder, "scenes", shipped.dataset, shipped.training, shipped.quality)
