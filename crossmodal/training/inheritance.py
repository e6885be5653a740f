"""Start a run from the weights of an earlier model (`--start-from`)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from crossmodal.errors import InvalidBundle, InvalidSetting
from crossmodal.networks.bundle import read_json
from crossmodal.networks.captioner import Captioner, CaptionerConfig
from crossmodal.networks.drawing import DrawingConfig, build

# Fields of a config that do not affect the shapes of other weights than OF_WORDS.
NOT_BUILT = ("words", "most", "doubled", "things", "edge_gain")
# Weights with one row per word.
OF_WORDS = ("decoder.embed.weight", "decoder.out.1.weight", "decoder.out.1.bias")


def check_drawing(config: DrawingConfig, origin: Path) -> None:
    """Raise `InvalidSetting` if the text-to-image weights in `origin` do not fit `config`."""
    with torch.device("meta"):
        model = build(config)
    _check(model, asdict(config), origin, "txt2img")


def check_captioner(config: CaptionerConfig, origin: Path) -> None:
    """Raise `InvalidSetting` if the captioner weights in `origin` do not fit `config`, except for
    the vocabulary."""
    with torch.device("meta"):
        model = Captioner(config)
    _check(model, asdict(config), origin, "img2txt")


def _check(model: nn.Module, config: dict[str, Any], origin: Path, stage: str) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = _shapes(origin / f"{stage}.safetensors")
    if stage == "img2txt":
        ours, theirs = (_without_words(shapes) for shapes in (ours, theirs))
    if ours == theirs:
        return
    its, wanted = read_json(origin / f"{stage}.json"), json.loads(json.dumps(config))
    told = [
        f"{name} {its.get(name)}, not {value}"
        for name, value in wanted.items()
        if its.get(name) != value and name not in NOT_BUILT
    ]
    why = f" ({'; '.join(told)})" if told else ""
    raise InvalidSetting(
        f"--start-from {origin}: its {stage} has another architecture{why}: pass the options that "
        "it was trained with"
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise InvalidBundle(f"{path} cannot be read: {e}") from e


def _without_words(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape[1:] if name in OF_WORDS else shape for name, shape in shapes.items()}


def take_over(model: Captioner, origin: Path) -> int:
    """Load the weights of the captioner in `origin`; return the number of shared words.

    Vocabularies may differ: rows of shared words are copied, new words keep their fresh weights.
    """
    places = {word: i for i, word in enumerate(read_json(origin / "img2txt.json")["words"])}
    shared = [(i, places[word]) for i, word in enumerate(model.config.words) if word in places]
    mine, its = (torch.tensor(rows, dtype=torch.long) for rows in zip(*shared, strict=True))
    path = origin / "img2txt.safetensors"
    try:
        weights = load_file(path)
        for name in OF_WORDS:
            rows = model.state_dict()[name].clone()
            rows[mine] = weights[name][its].float()
            weights[name] = rows
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError, LookupError, OSError) as e:
        raise InvalidBundle(f"{path} does not fit: {str(e).splitlines()[0]}") from e
    return len(shared)
