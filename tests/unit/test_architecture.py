"""What is loaded by what, found out from outside: import-linter misses what a package pulls in."""

import json
import re
import subprocess
import sys
from pathlib import Path

import crossmodal
import producer

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "cv2", "gensim", "scipy", "PIL", "numpy")


PROGRAM = """
import importlib, json, sys
loaded = {}
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(module)
    loaded[module] = sorted({name.partition(".")[0] for name in sys.modules.keys() - before})
print(json.dumps(loaded))
"""


def loaded_by(*modules: str, but: set[str]) -> dict[str, set[str]]:
    """Which of these modules loads what it must not, and what; they are imported in this order."""
    command = [sys.executable, "-c", PROGRAM, *modules]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {module: but & set(loaded) for module, loaded in json.loads(said).items()}
    return {module: names for module, names in found.items() if names}


def test_a_producer_loads_nothing_heavy() -> None:
    modules = (
        "producer",
        "producer.commands.submit",
        "producer.gateway.cli",
        "crossmodal",
        "crossmodal.cli",
        "crossmodal.testing",
    )
    assert not loaded_by(*modules, but={*HEAVY, "worker"})


def test_crossmodal_loads_the_producer_only_for_a_name_of_its() -> None:
    used = {"producer", "pydantic", "redis", "celery"}
    assert not loaded_by("crossmodal", "crossmodal.errors", but=used)
    assert crossmodal.Client is producer.Client


def test_what_needs_no_models_never_loads_torch() -> None:
    modules = (
        "worker.app",
        "worker.celery.tasks",
        "worker.supervisor",
        "worker.background.cli",
        "worker.host.program",
    )
    assert not loaded_by(*modules, but={"torch", "torchvision", "gensim", "scipy"})


def test_a_host_of_a_bundle_loads_nothing_that_only_training_needs() -> None:
    modules = ("worker.host.models", "crossmodal.models.drawing", "crossmodal.models.captioning")
    assert not loaded_by(*modules, but={"torchvision", "gensim", "scipy"})


def test_the_background_process_and_flower_need_nothing_heavy() -> None:
    """They run in the image of the producer, which has none of it."""
    assert not loaded_by("worker.background.cli", "worker.celery.tasks", but={*HEAVY})


def test_the_background_process_needs_neither_celery_nor_a_web_framework() -> None:
    assert not loaded_by("worker.background.cli", but={"celery", "kombu", "fastapi", "starlette"})


def test_a_worker_without_numpy_serves_no_jobs() -> None:
    program = (
        "import sys; sys.modules['numpy'] = None;from worker.celery.tasks import _load; _load()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "jobs need numpy: pip install 'crossmodal-jobs[worker]'\n",
    )


def test_the_model_host_never_loads_celery() -> None:
    assert not loaded_by("worker.host.server", but={"celery", "kombu", "billiard"})


def test_every_subcommand_can_be_loaded() -> None:
    from crossmodal.cli import commands, load

    for name in commands():
        assert callable(load(name)), name


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_every_error_has_a_code_of_its_own() -> None:
    from crossmodal import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = [k.code for k in kinds if issubclass(k, errors.CrossmodalError)]
    assert len(set(codes)) == len(codes)
    tree = errors.__doc__ or ""
    missing = {k.__name__ for k in kinds if issubclass(k, errors.CrossmodalError)} - words(tree)
    assert not missing, f"the tree in the docstring of crossmodal/errors.py lacks {missing}"


def test_every_code_has_a_row_in_the_operations_manual() -> None:
    from crossmodal import errors
    from crossmodal.local.stack import StackFailed

    manual = (ROOT / "docs" / "operations.md").read_text()
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = {k.code for k in kinds if issubclass(k, errors.CrossmodalError)}
    for code in codes | {StackFailed.code}:
        assert f"`{code}`" in manual, f"{code} has no row in docs/operations.md"
