"""Checks that no other module shadows this project's packages.

A script's folder and PYTHONPATH come first on Python's path, and many projects that use Celery have
a `worker.py`, a `producer.py` or a `celery.py` there.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from crossmodal.errors import PackageShadowed

BESIDE = Path(__file__).resolve().parents[1]  # the folder of this project's packages
OURS = ("producer", "worker")


def check_not_shadowed(*packages: str) -> None:
    """Raise `PackageShadowed` if another module would be imported for one of `packages`."""
    for name in packages:
        spec = _spec(name)
        if spec is not None and not _is_the_package(name, spec):
            raise PackageShadowed(
                f"Python finds {spec.origin} in the place of the package {name!r}: rename it, or "
                "take its folder off Python's path (a script's own folder, PYTHONPATH)"
            )


def is_the_command() -> bool:
    """Return whether this process is the `crossmodal` command, which prints no tracebacks."""
    script = Path(next(iter(sys.orig_argv[1:]), ""))
    as_module = {("-m", "crossmodal"), ("-m", "crossmodal.cli")} & set(pairwise(sys.orig_argv))
    return script.name == "crossmodal" or bool(as_module)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ValueError:  # a module object created by hand, without a spec
        return None


def _is_the_package(name: str, spec: ModuleSpec) -> bool:
    if name in OURS:
        return Path(spec.origin or "").resolve().parent == BESIDE / name
    return spec.submodule_search_locations is not None  # third-party ones are known to be packages
