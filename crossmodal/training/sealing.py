"""Turn a folder of trained stages into a bundle: judge it, seal it, write its model card."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossmodal.datasets.base import Dataset
from crossmodal.errors import InvalidSetting
from crossmodal.networks.bundle import DATA_FILES, MANIFEST, Bundle, seal
from crossmodal.training.card import TASKS, write_card
from crossmodal.training.evaluation import Report, evaluate
from crossmodal.training.inference import Models, single_threaded
from crossmodal.training.stages import STAGES, training_record

_NAME = re.compile(r"\w[\w .-]{0,63}")


def missing(out: Path, stages: Sequence[str] = ()) -> list[str]:
    """Return the stages that the bundle in `out` lacks once `stages` are trained."""
    return [s for s in STAGES if s not in stages and not (out / STAGES[s].made).is_file()]


def name_of(out: Path, given: str | None) -> str:
    """Return the bundle's name: `given`, else its current name, else the folder's name.

    Raises `InvalidSetting`.
    """
    name, what = _former_name(out) if given is None else given, "--name {!r}"
    if name is None:
        name, what = out.resolve().name, "the folder's name, {!r}, cannot be the bundle's; --name"
    if not _NAME.fullmatch(name):
        raise InvalidSetting(
            f"{what.format(name)}: give 1 to 64 letters, digits, spaces, dots, hyphens or "
            "underscores, the first a letter, a digit or an underscore"
        )
    return name


def _former_name(out: Path) -> str | None:
    try:
        return str(json.loads((out / MANIFEST).read_text())["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # no manifest, or a damaged one that will be rewritten


def seal_if_complete(
    out: Path,
    name: str | None,
    data: Dataset,
    judged: int,
    limit_s: float = math.inf,
    report: Report = lambda *_: None,
) -> Bundle | None:
    """Judge the bundle in `out` and seal it; return None while a stage is missing.

    It is judged by up to `judged` examples per split, for about `limit_s` seconds at most."""
    if not all((out / file).is_file() for file in DATA_FILES):
        return None
    name = name or name_of(out, None)  # another run may have trained what was missing
    bundle = seal(out, name, data.name, training_record(out), {})
    return keep_quality(bundle, data, evaluate(bundle, data, judged, data.judged, limit_s, report))


def is_trained_on(bundle: Bundle, data: Dataset) -> bool:
    """Return whether a bundle was trained on the content of `data`, whatever its folder."""
    last = [runs[-1] for runs in bundle.manifest.training.values() if runs]
    contents = {run["content"] for run in last if "content" in run}
    if not contents:  # trained before content digests were recorded
        return data.name == bundle.manifest.dataset
    return data.digest in contents


def keep_quality(bundle: Bundle, data: Dataset, quality: dict[str, Any]) -> Bundle:
    """Write metrics to the bundle's manifest, and its model card.

    Splits measured earlier on the same number of examples keep their metrics. The bundle's
    version does not change: it is a digest of the model files.
    """
    m = bundle.manifest
    if m.quality.get("count") == quality["count"]:
        for task in TASKS:
            known = m.quality.get(task, {}) | quality.get(task, {})
            if known:
                quality = quality | {task: known}
    sealed = seal(bundle.folder, m.name, m.dataset, m.training, quality)
    with single_threaded():
        write_card(sealed, data, Models.of(sealed))
    return sealed
