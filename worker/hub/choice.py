"""Chooses the files of a repository that a model needs, before any weights are fetched.

Weights are taken only as *.safetensors. Other files are taken if they have the suffix of a config,
tokenizer or license; code never is. Of a diffusers pipeline, only the folders named in its index.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crossmodal.errors import InvalidModel, InvalidSetting
from crossmodal.models.catalog import PICKLES
from crossmodal.networks.bundle import MANIFEST
from worker.hub.repository import HubFile, Repository

INDEX, CONFIG = "model_index.json", "config.json"
SOURCE = "crossmodal-source.json"  # where the files of a folder came from
OURS = (MANIFEST, SOURCE)  # files of these names in a repository mean something else
PLAIN = ""  # stands for weights without a variant
NEVER_READ = (*PICKLES, ".msgpack", ".h5", ".onnx")
KEPT = (".json", ".txt", ".model", ".jinja")
ABOUT = ("README", "LICENSE", "LICENCE", "NOTICE")
# As the libraries name them: model.safetensors, model.fp16.safetensors, and, if sharded,
# model-00001-of-00002.safetensors, model.fp16-00001-of-00002.safetensors or
# model-00001-of-00002.fp16.safetensors with a model.safetensors.index.fp16.json.
WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(\w+?))?(?:-\d{5}-of-\d{5})?(?:\.(\w+))?\.safetensors"
    r"(?:\.index(?:\.(\w+))?\.json)?"
)


def mark_of(repository: Repository) -> str:
    """Return `INDEX` or `CONFIG`, whichever is there. Raises `InvalidModel` if neither is."""
    found = [name for name in (INDEX, CONFIG) if name in repository.by_name]
    if not found:
        raise InvalidModel(
            f"{repository.name} has neither {INDEX} nor {CONFIG} at its top level: it is neither a "
            "diffusers pipeline nor a transformers captioner"
        )
    return found[0]


def needed(repository: Repository, told: Mapping[str, Any], variant: str) -> list[HubFile]:
    """Return the files to fetch; `told` is the content of the file of `mark_of`.

    Raises `InvalidModel` for a model that could not be served, and `InvalidSetting` for a variant
    of a model that has none.
    """
    is_pipeline = mark_of(repository) == INDEX
    if is_pipeline:
        files = _of_pipeline(repository, told, variant)
    else:
        files = _of_captioner(repository, told, variant)
    if not any(variant_of(file.base) is not None for file in files):
        raise InvalidModel(f"{repository.name} has no weights in *.safetensors")
    return files


def variant_of(base: str) -> str | None:
    """Return the variant of a weights file, `PLAIN` if it has none; None for any other file."""
    found = WEIGHTS.fullmatch(base)
    return next(filter(None, found.groups()), PLAIN) if found else None


def _of_pipeline(repository: Repository, index: Mapping[str, Any], variant: str) -> list[HubFile]:
    _check_code(repository, index)
    files = [repository.by_name[INDEX], *_about(repository)]
    known: set[str] = set()
    for name in _parts(index):
        within = [file for file in repository.files if file.folder == name]
        known |= {v for file in within if (v := variant_of(file.base))}
        files += _of_folder(f"{repository.name}: {name}", within, variant)
    if variant and variant not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "it has no variants"
        raise InvalidModel(f"{repository.name} has no weights of the variant {variant}: {there}")
    return files


def _of_captioner(repository: Repository, config: Mapping[str, Any], variant: str) -> list[HubFile]:
    if variant:
        raise InvalidSetting(
            f"--variant {variant}: only diffusers pipelines have variants, and {repository.name} "
            "is not one"
        )
    if config.get("auto_map"):
        raise _needs_code(repository, f"auto_map in {CONFIG}")
    top = [file for file in repository.files if not file.folder]
    return [*_of_folder(repository.name, top, PLAIN), *_about(repository)]


def _check_code(repository: Repository, index: Mapping[str, Any]) -> None:
    """Raise `InvalidModel` for a pipeline that needs code from its own repository."""
    if not isinstance(index.get("_class_name"), str):
        raise _needs_code(repository, f"_class_name in {INDEX}")
    for name, library in _parts(index).items():
        if f"{name}/{library}.py" in repository.by_name:
            raise _needs_code(repository, f"{name} in {INDEX}")


def _needs_code(repository: Repository, where: str) -> InvalidModel:
    return InvalidModel(
        f"{repository.name} needs code from its own repository ({where}), which is never run: "
        "look for a version that diffusers or transformers can load without it"
    )


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the components of a pipeline, with the library of each."""
    return {
        name: str(said[0])
        for name, said in index.items()
        if isinstance(said, list) and len(said) == 2 and said[0] and not name.startswith("_")
    }


def _of_folder(where: str, within: list[HubFile], variant: str) -> list[HubFile]:
    kept = [file for file in within if _is_kept(file.base)]
    return kept + _weights(where, within, variant)


def _weights(where: str, within: list[HubFile], variant: str) -> list[HubFile]:
    """Return the weights of a folder: those of the variant, else those without a variant."""
    found: dict[str, list[HubFile]] = defaultdict(list)
    for file in within:
        if (said := variant_of(file.base)) is not None:
            found[said].append(file)
    if not found and (pickle := next(_pickles(within), None)):
        raise InvalidModel(
            f"{where} has weights only in {pickle.base}, which is never read, and none in "
            "*.safetensors: look for a revision that has them"
        )
    chosen = variant if variant in found else PLAIN
    if found and chosen not in found:
        raise InvalidModel(
            f"{where} has weights only of the variant {min(found)}: give --variant {min(found)}"
        )
    return found.get(chosen, [])


def _pickles(within: Iterable[HubFile]) -> Iterator[HubFile]:
    return (file for file in within if file.name.endswith(NEVER_READ))


def _is_kept(base: str) -> bool:
    """Return whether a file is a config or tokenizer, and not named like one of `OURS`."""
    if base.startswith(".") or ".safetensors" in base or ".index." in base or base in OURS:
        return False
    return base.endswith(KEPT) and not base.startswith(ABOUT)


def _about(repository: Repository) -> list[HubFile]:
    """Return the readme, license and notice files at the top."""
    return [
        file
        for file in repository.files
        if not file.folder
        and file.base.startswith(ABOUT)
        and file.base.endswith((*ABOUT, ".md", ".txt"))
    ]
