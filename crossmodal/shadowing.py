"""Whether Python finds our packages, and not a file of somebody else's that is called the same.

A script's own folder and PYTHONPATH come first on Python's path, and many a project that uses
Celery has a `worker.py`, a `producer.py` or a `celery.py` there.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from crossmodal.errors import PackageShadowed

BESIDE = Path(__file__).resolve().parents[1]  # where our packages are, one beside the other
OURS = ("producer", "worker")


def check_not_shadowed(*packages: str) -> None:
    """Raises `PackageShadowed` where something else would be imported for one of `packages`."""
    for name in packages:
        spec = _spec(name)
        if spec is not None and not _is_the_package(name, spec):
            raise PackageShadowed(
                f"Python finds {spec.origin} in the place of the package {name!r}: rename it, or "
                "take its folder off Python's path (a script's own folder, PYTHONPATH)"
            )


def is_the_command() -> bool:
    """Whether this process is the `crossmodal` command, which tells errors without a traceback."""
    script = Path(next(iter(sys.orig_argv[1:]), ""))
    as_module = {("-m", "crossmodal"), ("-m", "crossmodal.cli")} & set(pairwise(sys.orig_argv))
    return script.name == "crossmodal" or bool(as_module)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ValueError:  # a module that somebody has made by hand
        return None


def _is_the_package(name: str, spec: ModuleSpec) -> bool:
    if name in OURS:
        return Path(spec.origin or "").resolve().parent == BESIDE / name
    return spec.submodule_search_locations is not None  # of others it is known that they are one
