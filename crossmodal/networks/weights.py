"""Save and load a model as two files of a bundle: `<kind>.json` and `<kind>.safetensors`.

Weights are stored as float16, for half the size, and loaded as float32. Unlike a pickle,
safetensors cannot run code.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from crossmodal.errors import InvalidBundle, described
from crossmodal.files import write_whole
from crossmodal.invalid import explained
from crossmodal.networks.bundle import BERT, WORDS, Bundle, bert_files
from crossmodal.networks.captioner import Captioner, CaptionerConfig
from crossmodal.networks.drawing import KINDS, DrawingConfig, build
from crossmodal.networks.picture_vae import PictureVAE
from crossmodal.networks.scene_vae import SceneVAE
from crossmodal.text.bert import BertVectors
from crossmodal.text.vectors import TextVectors
from crossmodal.text.word_vectors import load_vectors

MAX_WHY = 200  # characters of torch's error message

Model = TypeVar("Model", bound=nn.Module)


def save_model(folder: Path, name: str, model: nn.Module) -> None:
    """Write `<name>.json` and `<name>.safetensors` into `folder`, each atomically."""
    config = model.config
    assert is_dataclass(config)  # noqa: S101 - every model of this project has one
    weights = {
        k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    write_whole(folder / f"{name}.safetensors", save(weights))
    write_whole(folder / f"{name}.json", json.dumps(asdict(config), indent=2) + "\n")


def load_drawing(bundle: Bundle, device: torch.device) -> SceneVAE | PictureVAE:
    """Load the bundle's text-to-image model, in evaluation mode on `device`."""
    config = drawing_config(bundle)
    return _filled(lambda: build(config), bundle, "txt2img", device)


def load_captioner(bundle: Bundle, device: torch.device) -> Captioner:
    """Load the bundle's captioner, in evaluation mode on `device`."""
    config = _config(bundle, "img2txt", CaptionerConfig)
    return _filled(lambda: Captioner(config), bundle, "img2txt", device)


def drawing_config(bundle: Bundle) -> DrawingConfig:
    """Read the config of the bundle's text-to-image model, `scene` or `picture`."""
    kind = bundle.config("txt2img.json").get("kind", "scene")
    if kind not in KINDS:
        raise InvalidBundle(
            f"{bundle.path('txt2img.json')}: kind {kind!r} is not one of {', '.join(KINDS)}"
        )
    config: DrawingConfig = _config(bundle, "txt2img", KINDS[kind][0])
    return config


def load_text(bundle: Bundle, source: str) -> TextVectors:
    """Load the text vectors that the bundle's text-to-image model reads: word2vec or BERT."""
    if source == "word2vec":
        return load_vectors(bundle.path(WORDS))
    strangers = set(bert_files(bundle.folder)) - set(bundle.manifest.files)
    if strangers:  # transformers would load them too
        raise InvalidBundle(f"{bundle.folder}: its manifest names no digest for {min(strangers)}")
    return BertVectors(bundle.path(BERT))


def _config(bundle: Bundle, name: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(bundle.config(f"{name}.json"))
    except ValidationError as e:
        what = explained(e.errors()[0], "all of it")
        raise InvalidBundle(f"{bundle.path(name + '.json')}: {what}") from e


def _filled(make: Callable[[], Model], bundle: Bundle, name: str, device: torch.device) -> Model:
    try:
        model = make()
    except Exception as e:  # torch raises various errors for inconsistent sizes
        file = bundle.path(f"{name}.json")
        raise InvalidBundle(
            f"{file}: no model can be built from it: {described(e)[:MAX_WHY]}"
        ) from e
    load_weights(model, bundle.folder, name)
    return model.to(device).eval()


def load_weights(model: nn.Module, folder: Path, name: str) -> None:
    """Load `<name>.safetensors` into `model`. Raises `InvalidBundle`."""
    path = folder / f"{name}.safetensors"
    try:
        weights = load_file(path)
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        )
    except (SafetensorError, RuntimeError, OSError) as e:
        why = " ".join(line.strip() for line in str(e).splitlines()[:2])
        raise InvalidBundle(
            f"{path} does not fit {name}.json: {why[:MAX_WHY]}. Copy the bundle again; if another "
            "version made it, train it again"
        ) from e
