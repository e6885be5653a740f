"""The command `crossmodal evaluate`.

crossmodal evaluate runs/scenes --json
"""

from typing import Any

from crossmodal.console import Json, errors_to_exit_status, note, print_json, print_table
from crossmodal.datasets.base import Dataset
from crossmodal.datasets.registry import open_dataset
from crossmodal.errors import InvalidData, InvalidSetting
from crossmodal.networks.bundle import Bundle, open_bundle
from crossmodal.networks.weights import drawing_config
from crossmodal.settings import load_settings
from crossmodal.training import flags
from crossmodal.training.evaluation import evaluate as evaluate_bundle
from crossmodal.training.sealing import is_trained_on, keep_quality
from crossmodal.training.telling import counted, warn, warnings_of


def evaluate(
    bundle: flags.Served = None,
    split: flags.Split = "all",
    dataset: flags.MeasuredOn = None,
    count: flags.Count = 2000,
    save: flags.Save = False,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on fresh examples, by judges that are independent of its models."""
    with errors_to_exit_status():
        opened = open_bundle(bundle or load_settings().bundle)
        data = _measured_on(opened, dataset)
        if not data.judged:
            raise InvalidData(f"nothing can be measured: {data.name} has no split to evaluate on")
        splits = data.judged if split == "all" else (split,)
        if split not in (*data.judged, "all"):
            raise InvalidSetting(f"--split {split!r}: {data.name} has {', '.join(data.judged)}")
        if save and not is_trained_on(opened, data):
            raise InvalidSetting(
                f"--save: {opened.name} was not trained on {data.name} in its current state"
            )
        with counted("judging") as tell:
            found = evaluate_bundle(opened, data, count, splits, report=tell)
            if save and found["count"]:
                keep_quality(opened, data, found)
        warn(warnings_of(found, splits))
        if not found["count"]:
            raise InvalidData(f"nothing was measured: {data.name} has no picture that can be read")
        if as_json:
            print_json(found)
            return
        print_table(("", "split", "figure", "value"), _rows(found))


def _measured_on(bundle: Bundle, dataset: str | None) -> Dataset:
    """Open the data set `dataset`, by default the one that the bundle was trained on."""
    try:
        data = open_dataset(dataset or bundle.manifest.dataset, drawing_config(bundle).side)
    except InvalidData as e:
        if dataset:
            raise
        raise InvalidData(f"{e}; if it has been moved, pass its new location by --dataset") from e
    if not is_trained_on(bundle, data):
        note(
            f"warning {data.name} has other captions or pictures than {bundle.name} was trained on"
        )
    return data


def _rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = [
        (task, split, name, value)
        for task in ("txt2img", "img2txt", "round_trip")
        for split, figures in found.get(task, {}).items()
        for name, value in figures.items()
    ]
    return rows + [("judge", "true pictures", k, v) for k, v in found.get("judge", {}).items()]
