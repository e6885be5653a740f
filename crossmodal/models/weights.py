"""A model and its config, as two files of a bundle: `<task>.json` and `<task>.safetensors`.

Weights are stored as float16, half the size, and computed with as float32. safetensors
holds tensors and nothing that could run, unlike a pickle.
"""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from crossmodal.errors import BundleInvalid
from crossmodal.models.bundle import Bundle
from crossmodal.models.captioner import Captioner, CaptionerConfig
from crossmodal.models.vae import SceneVAE, VAEConfig

Model = TypeVar("Model", SceneVAE, Captioner)


def save_model(folder: Path, name: str, model: nn.Module) -> None:
    """Write `<name>.json` and `<name>.safetensors` into `folder`."""
    config = model.config
    assert is_dataclass(config)  # noqa: S101 - every model of this project has one
    (folder / f"{name}.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    weights = {
        k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    path.chmod(0o644)  # safetensors makes it readable by nobody else


def load_vae(bundle: Bundle, device: torch.device) -> SceneVAE:
    """The bundle's text-to-image model, in evaluation mode on `device`."""
    return _filled(SceneVAE(_config(bundle, "txt2img", VAEConfig)), bundle, "txt2img", device)


def load_captioner(bundle: Bundle, device: torch.device) -> Captioner:
    """The bundle's captioner, in evaluation mode on `device`."""
    return _filled(
        Captioner(_config(bundle, "img2txt", CaptionerConfig)), bundle, "img2txt", device
    )


def _config(bundle: Bundle, name: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(bundle.config(f"{name}.json"))
    except ValidationError as e:
        error = e.errors()[0]
        raise BundleInvalid(
            f"{bundle.path(name + '.json')}: {'.'.join(map(str, error['loc']))}: {error['msg']}"
        ) from e


def _filled(model: Model, bundle: Bundle, name: str, device: torch.device) -> Model:
    load_weights(model, bundle.folder, name)
    return model.to(device).eval()


def load_weights(model: nn.Module, folder: Path, name: str) -> None:
    """Fill `model` from `<name>.safetensors`. Raises `BundleInvalid`."""
    path = folder / f"{name}.safetensors"
    try:
        weights = load_file(path)
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        )
    except (SafetensorError, RuntimeError, OSError) as e:
        raise BundleInvalid(f"{path} does not fit {name}.json: {str(e).splitlines()[0]}") from e
