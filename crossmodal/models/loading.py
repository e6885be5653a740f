"""The models of a folder, as objects that can be loaded; this needs what they are made of."""

import importlib.util
import sys
from types import ModuleType

from crossmodal.errors import ModelInvalid, described
from crossmodal.models.catalog import CODE, ModelFolder
from crossmodal.models.contract import Model


def models_of(found: ModelFolder) -> tuple[Model, ...]:
    """One model a kind, none of them loaded. Raises `ModelInvalid`, and runs allowed code."""
    if found.format == "bundle":
        from crossmodal.models.captioning import BundleCaptioning
        from crossmodal.models.drawing import BundleDrawing

        return BundleDrawing(), BundleCaptioning()
    if found.format == "diffusers":
        from crossmodal.models.diffusers_folder import DiffusersFolder

        return (DiffusersFolder(found.config),)
    if found.format == "transformers":
        from crossmodal.models.transformers_folder import TransformersFolder

        return (TransformersFolder(found.config),)
    return _own_models(found)


def _own_models(found: ModelFolder) -> tuple[Model, ...]:
    """The classes of a `model.py` that serve a kind."""
    module = _run(found)
    classes = [
        one for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Model) and one.__module__ == module.__name__
        and getattr(one, "kind", None) in found.kinds
    ]  # fmt: skip
    try:
        models = tuple(one() for one in classes)
    except Exception as e:
        raise ModelInvalid(f"{found.folder / CODE}: {type(e).__name__}: {described(e)}") from e
    if {model.kind for model in models} != set(found.kinds):
        raise ModelInvalid(f"{found.folder / CODE}: not each kind is served by a Model")
    for model in models:
        if found.config.max_batch is not None:
            model.max_batch = found.config.max_batch
    return models


def _run(found: ModelFolder) -> ModuleType:
    path = found.folder / CODE
    name = f"crossmodal_model_{found.version}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - for mypy: it is a file of Python
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise ModelInvalid(f"{path}: {type(e).__name__}: {described(e)}") from e
    return module
