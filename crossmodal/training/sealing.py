"""From a folder of trained stages to a bundle that can be served: judged, sealed, described."""

from pathlib import Path
from typing import Any

from crossmodal.datasets.base import Dataset
from crossmodal.models.bundle import DATA_FILES, Bundle, seal
from crossmodal.training.card import TASKS, write_card
from crossmodal.training.evaluation import Pipelines, evaluate
from crossmodal.training.stages import training_record


def seal_if_complete(out: Path, data: Dataset, judged: int) -> Bundle | None:
    """Judge the bundle in `out` by `judged` examples a split and seal it; None while a stage is
    missing."""
    if not all((out / file).is_file() for file in DATA_FILES):
        return None
    name = data.name.partition(":")[0]
    bundle = seal(out, name, data.name, training_record(out), {})
    return keep_quality(bundle, data, evaluate(bundle, data, judged, data.judged))


def keep_quality(bundle: Bundle, data: Dataset, quality: dict[str, Any]) -> Bundle:
    """Put measured figures into the bundle's manifest, and describe it in its model card.

    Splits that were measured before on as many examples keep their figures. The bundle's
    version stays: that is of its weights.
    """
    m = bundle.manifest
    if m.quality.get("count") == quality["count"]:
        for task in TASKS:
            known = m.quality.get(task, {}) | quality.get(task, {})
            if known:
                quality = quality | {task: known}
    sealed = seal(bundle.folder, m.name, m.dataset, m.training, quality)
    write_card(sealed, data, Pipelines.of(sealed))
    return sealed
