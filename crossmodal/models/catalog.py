"""The models in a folder, found by its files, without loading torch or running the folder's code.

    bundle.json         a bundle: txt2img and img2txt
    model_index.json    a pipeline of diffusers: txt2img
    config.json         a captioner of transformers: img2txt
    model.py            a user's own class, if the folder's name is allowed
    entry:NAME          a class from an installed package, if that name is allowed

A `crossmodal.toml` beside them sets how the model is loaded, and its defaults.
"""

import ast
import hashlib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossmodal.errors import (
    BundleNotFound,
    CrossmodalError,
    ExtraMissing,
    InvalidBundle,
    InvalidModel,
    InvalidSetting,
    described,
)
from crossmodal.extras import require
from crossmodal.files import read_regular
from crossmodal.invalid import explained
from crossmodal.kinds.fields import MODEL_NAME_RULE, NameOfModel, is_model_name
from crossmodal.kinds.registry import kinds
from crossmodal.networks.bundle import MANIFEST, open_bundle
from crossmodal.settings import Settings

GROUP = "crossmodal.models"  # of entry points that name a `Model` class
ENTRY = "entry:"  # prefix of an entry point's name, in place of a folder's path
CONFIG = "crossmodal.toml"
CODE = "model.py"
MARKS = {
    MANIFEST: "bundle",
    "model_index.json": "diffusers",
    CODE: "code",
    "config.json": "transformers",
}
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
ALWAYS = {"description", "aliases", "pinned", "together"}
USED = {  # options of crossmodal.toml, by format
    "bundle": ALWAYS,
    "code": ALWAYS | {"max_batch"},
    "transformers": ALWAYS | {"max_batch", "dtype"},
    "diffusers": ALWAYS | {"max_batch", "dtype", "variant", "offload", "slicing", "defaults"},
}
SMALL = 1 << 20  # bytes; the version covers the contents of files up to this size
Format = Literal["bundle", "diffusers", "transformers", "code"]


class FolderConfig(BaseModel):
    """The contents of `crossmodal.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    aliases: tuple[NameOfModel, ...] = ()
    pinned: bool = False
    together: bool = False
    max_batch: int | None = Field(default=None, ge=1, le=512)
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    variant: str | None = Field(default=None, pattern=r"^\w{1,32}$")
    offload: bool = False
    slicing: bool = False
    defaults: dict[str, Any] = {}


@dataclass(frozen=True)
class ModelFolder:
    """A folder with one model per kind; its models share a process."""

    folder: Path
    format: Format
    name: str
    version: str
    kinds: tuple[str, ...]
    config: FolderConfig
    entry: str = ""
    """`module:Class` of an entry point, whose `folder` is that of the module; else empty."""

    @property
    def source(self) -> Path:
        """The path that `open_folder` opens as this folder."""
        return Path(ENTRY + self.name) if self.entry else self.folder

    @property
    def weights_bytes(self) -> int:
        """The size of its weight files: about what it needs of a device's memory."""
        weights = (file for file in _files(self.folder) if file.suffix == ".safetensors")
        return sum(file.stat().st_size for file in weights)


def open_folder(folder: Path, allowed: Collection[str] = ()) -> ModelFolder:
    """Open a folder; `allowed` are the names of folders and entry points whose code may run.

    `entry:NAME` is a class from an installed package. Raises `BundleNotFound`,
    `InvalidBundle`, `InvalidModel` or `ExtraMissing`.
    """
    if str(folder).startswith(ENTRY):
        return _open_entry(str(folder).removeprefix(ENTRY), allowed)
    mark = next((name for name in MARKS if (folder / name).is_file()), None)
    if mark is None:
        why = f"it has none of {', '.join(MARKS)}" if folder.is_dir() else "there is no such folder"
        raise BundleNotFound(
            f"there is no model in {folder}: {why}. Name a folder made by `crossmodal train`, one "
            "of diffusers or transformers, or one with a class of your own"
        )
    folder = folder.resolve()
    if mark == MANIFEST:
        bundle = open_bundle(folder)
        named, of = (bundle.name, bundle.version), ("txt2img", "img2txt")
        return ModelFolder(folder, "bundle", *named, of, _config(folder, "bundle"))
    config = _config(folder, MARKS[mark])
    if mark == CODE:
        _check_allowed(folder, allowed)
        return ModelFolder(
            folder, "code", folder.name, _version(folder), _declared(folder / CODE), config
        )
    _check_weights(folder)
    require("hf", f"the model in {folder}")
    named = folder.name, _version(folder)
    if mark == "model_index.json":
        return ModelFolder(folder, "diffusers", *named, ("txt2img",), config)
    return ModelFolder(folder, "transformers", *named, ("img2txt",), config)


@dataclass(frozen=True)
class Served:
    """The folders that workers serve: that of the `default` model first, then the others.

    `faults` has the errors of folders that cannot be served; they do not stop the others.
    """

    folders: tuple[ModelFolder, ...]
    default: str
    faults: Mapping[str, CrossmodalError] = field(default_factory=dict)

    def only(self, names: Collection[str]) -> "Served":
        """Return the folders with these names. Raises `InvalidSetting` for an unknown name."""
        known = [folder.name for folder in self.folders]
        for name in names:
            if name in self.faults:
                raise self.faults[name]
            if name not in known:
                raise InvalidSetting(
                    f"--models {','.join(names)}: there is no model {name!r}; known ones are "
                    f"{', '.join(known)}"
                )
        return replace(self, folders=tuple(f for f in self.folders if f.name in names))


def open_served(settings: Settings) -> Served:
    """Open the folders that workers serve by these settings.

    Raises `InvalidSetting`, and for the default folder what `open_folder` raises.
    """
    default = open_folder(settings.bundle, settings.allowed_model_code)
    folders: dict[str, ModelFolder] = {default.name: default}
    faults: dict[str, CrossmodalError] = {}
    brought = [
        Path(ENTRY + entry.name)
        for entry in entry_points(group=GROUP)
        if entry.name in settings.allowed_model_code
    ]
    for folder in (*_folders_in(settings.models), *brought):
        try:
            found = open_folder(folder, settings.allowed_model_code)
            if not found.entry:
                found = replace(found, name=folder.name)
            if found.source != default.source:
                _check_name(found, folders)
                folders[found.name] = found
        except OSError as e:  # as for a folder that only root may read
            faults[folder.name] = InvalidModel(f"{folder} cannot be read: {described(e)}")
        except (InvalidBundle, InvalidModel, ExtraMissing) as e:
            faults[folder.name.removeprefix(ENTRY)] = e
    return Served(tuple(folders.values()), default.name, faults)


def _folders_in(models: Path | None) -> list[Path]:
    if models is None:
        return []
    try:
        return sorted(one for one in models.iterdir() if one.is_dir() and one.name[0] != ".")
    except OSError as e:
        raise InvalidSetting(f"CROSSMODAL_MODELS={models} cannot be read: {described(e)}") from e


def _check_name(found: ModelFolder, others: Mapping[str, ModelFolder]) -> None:
    if not is_model_name(found.name):
        raise InvalidModel(
            f"{found.folder}: {found.name!r} is not a valid model name: rename the folder, using "
            f"{MODEL_NAME_RULE}"
        )
    if found.name in others:
        raise InvalidModel(
            f"{found.folder} and {others[found.name].folder} have the same name, {found.name}: "
            "rename one"
        )


def _open_entry(name: str, allowed: Collection[str]) -> ModelFolder:
    """Find the class of an entry point; only its parent packages' `__init__` runs."""
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise BundleNotFound(f"no installed package provides a model {name!r} ({GROUP})")
    if name not in allowed:
        raise InvalidModel(
            f"the model {name} is code of {found.value}, which is run only where its name is "
            "allowed: if you trust it, set CROSSMODAL_ALLOW_MODEL_CODE="
            f"{','.join([*allowed, name])}"
        )
    try:
        spec = find_spec(found.module)
    except Exception as e:  # another project's package may raise anything
        raise InvalidModel(f"{found.value}: {described(e)}") from e
    if spec is None or spec.origin is None:
        raise InvalidModel(f"{found.value}: there is no module {found.module}")
    path, version = Path(spec.origin), found.dist.version if found.dist else "0"
    kinds_said = _declared(path, found.attr)
    return ModelFolder(path.parent, "code", name, version, kinds_said, FolderConfig(), found.value)


def _config(folder: Path, form: str) -> FolderConfig:
    path = folder / CONFIG
    try:
        config = FolderConfig.model_validate(tomllib.loads(_text(path)))
    except FileNotFoundError:
        return FolderConfig()
    except ValidationError as e:
        raise InvalidModel(f"{path}: {explained(e.errors()[0], 'all of it')}") from e
    except (OSError, ValueError, RecursionError) as e:
        raise InvalidModel(f"{path} cannot be read as TOML: {e}") from e
    if unused := config.model_fields_set - USED[form]:
        raise InvalidModel(
            f"{path}: {min(unused)} has no effect on a model of format {form}: remove it"
        )
    return config


def _check_allowed(folder: Path, allowed: Collection[str]) -> None:
    named = [name for name in allowed if "/" not in name]
    if folder.name not in allowed:
        raise InvalidModel(
            f"{folder / CODE} is code, which is run only where its folder's name is allowed: if "
            f"you trust it, set CROSSMODAL_ALLOW_MODEL_CODE={','.join([*named, folder.name])}"
        )


def _declared(path: Path, only: str = "") -> tuple[str, ...]:
    """Return the kinds of a file's classes, or of class `only`, without running the file."""
    try:
        tree = ast.parse(_text(path), str(path))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as e:
        raise InvalidModel(f"{path} cannot be read as Python: {e}") from e
    found = {
        node.name: kind
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        if only in ("", node.name) and (kind := _kind_said(node)) is not None
    }
    if not found:
        raise InvalidModel(
            f'{path} has no class with a line such as kind = "txt2img"; the kinds are '
            f"{', '.join(kinds())}"
        )
    for name, kind in found.items():
        if kind not in kinds():
            raise InvalidModel(
                f"{path}: {name} has the kind {kind!r}; known kinds are {', '.join(kinds())}"
            )
    if len(set(found.values())) < len(found):
        raise InvalidModel(
            f"{path}: {' and '.join(found)} serve the same kind: keep one class per kind"
        )
    return tuple(found.values())


def _text(path: Path) -> str:
    return read_regular(path, SMALL).decode()


def _kind_said(node: ast.ClassDef) -> str | None:
    """Return the string constant that a class assigns to `kind`, or None."""
    for line in node.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        if (
            [t.id for t in targets if isinstance(t, ast.Name)] == ["kind"]
            and isinstance(value, ast.Constant)
            and isinstance(value.value, str)
        ):
            return value.value
    return None


def _check_weights(folder: Path) -> None:
    """Raise `InvalidModel` for weights that only a pickle has: reading one runs code."""
    files = list(_files(folder))
    pickles = [file for file in files if file.suffix in PICKLES]
    if not any(file.suffix == ".safetensors" for file in files):
        why = f", only {pickles[0].name}, a pickle, which is never read" if pickles else ""
        raise InvalidModel(
            f"{folder} has no *.safetensors weights{why}: fetch a revision that has some, or "
            "convert the weights if you trust them"
        )


def _version(folder: Path) -> str:
    """Return a digest of the names and sizes of all files, and of the contents of small ones."""
    digest = hashlib.sha256()
    for file in sorted(_files(folder)):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}\0{size}\0".encode())
        if size <= SMALL:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterable[Path]:
    return (
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
