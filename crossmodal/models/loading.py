"""Construction of a folder's models; imports the libraries that these need."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from crossmodal.errors import InvalidModel, described
from crossmodal.models.catalog import CODE, ModelFolder
from crossmodal.models.contract import Model


def models_of(found: ModelFolder) -> tuple[Model, ...]:
    """Return one model per kind, not loaded yet. Runs allowed code. Raises `InvalidModel`."""
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
    """Return instances of the classes of a user's module that serve a kind."""
    module = _imported(found) if found.entry else _run(found)
    only = found.entry.partition(":")[2]
    classes = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and one.__module__ == module.__name__
        and getattr(one, "kind", None) in found.kinds
        and only in ("", one.__name__)
    ]
    for one in classes:
        _check_class(found, one)
    try:
        models = tuple(one() for one in classes)
    except Exception as e:
        raise InvalidModel(f"{found.folder / CODE}: {described(e)}") from e
    for model in models:
        if found.config.max_batch is not None:
            model.max_batch = found.config.max_batch
    return models


def _check_class(found: ModelFolder, one: Any) -> None:
    """Raise `InvalidModel` for a class that cannot be served."""
    named = f"{found.folder / CODE}: {one.__name__}"
    if not issubclass(one, Model):
        raise InvalidModel(
            f"{named} has the kind {one.kind!r}, but is not a subclass of "
            "crossmodal.models.contract.Model"
        )
    most = one.max_batch
    if most is not None and (type(most) is not int or most < 1):
        raise InvalidModel(f"{named}: max_batch is {most!r}: it must be a whole number, at least 1")
    if strange := [name for name in one.shared if name not in one.Params.model_fields]:
        raise InvalidModel(f"{named}: shared names {strange[0]!r}, which its params do not have")


def _imported(found: ModelFolder) -> ModuleType:
    """Import the module of an entry point."""
    try:
        return importlib.import_module(found.entry.partition(":")[0])
    except Exception as e:
        raise InvalidModel(f"{found.entry}: {described(e)}") from e


def _run(found: ModelFolder) -> ModuleType:
    path = found.folder / CODE
    name = f"crossmodal_model_{found.version}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - for mypy: a .py file has a spec
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.append(str(found.folder))  # last: installed packages go first
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise InvalidModel(f"{path}: {described(e)}") from e
    return module
