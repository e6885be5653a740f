"""What is loaded by what, found out from outside: import-linter misses what a package pulls in."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "cv2", "gensim", "scipy", "PIL", "numpy")


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}; import sys, json; print(json.dumps(list(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    return {name.partition(".")[0] for name in json.loads(output)}


@pytest.mark.parametrize(
    "module",
    ["producer", "producer.cli", "producer.gateway.cli", "crossmodal", "crossmodal.cli",
     "crossmodal.testing"],
)  # fmt: skip
def test_a_producer_loads_nothing_heavy(module: str) -> None:
    assert not loaded_by(f"import {module}") & {*HEAVY, "worker"}


def test_crossmodal_loads_the_producer_only_for_a_name_of_its() -> None:
    used = {"producer", "pydantic", "redis", "celery"}
    assert not loaded_by("import crossmodal; from crossmodal import errors") & used
    assert "producer" in loaded_by("from crossmodal import Client")


@pytest.mark.parametrize(
    "module",
    ["worker.app", "worker.tasks", "worker.supervisor", "worker.webhooks", "worker.host.program"],
)
def test_what_needs_no_models_never_loads_torch(module: str) -> None:
    assert not loaded_by(f"import {module}") & {"torch", "torchvision", "gensim", "scipy"}


@pytest.mark.parametrize(
    ("contract", "exceptions"),
    [("only the model host has torch and the pipelines", {"host"}),
     ("Celery stays at the edge",
      {"app", "calls", "celery", "control", "lease", "tasks", "transport"})],
)  # fmt: skip
def test_import_linter_looks_at_every_module_of_the_worker(
    contract: str, exceptions: set[str]
) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [listed] = [c["source_modules"] for c in contracts["contracts"] if c["name"] == contract]
    paths = [*(ROOT / "worker").glob("*.py"), *(ROOT / "worker").glob("*/__init__.py")]
    modules = {p.stem if p.parent.name == "worker" else p.parent.name for p in paths}
    wanted = {f"worker.{name}" for name in modules - {"__init__"} - exceptions}
    assert {name for name in listed if name.startswith("worker")} == wanted


def test_webhooks_and_flower_need_nothing_heavy() -> None:
    """They run in the image of the producer, which has none of it."""
    assert not loaded_by("import worker.webhooks, worker.tasks") & {*HEAVY}


def test_a_worker_without_numpy_serves_no_jobs() -> None:
    program = (
        "import sys; sys.modules['numpy'] = None; from types import SimpleNamespace as N;"
        "from worker.tasks import _load;"
        "_load(N(app=N(amqp=N(queues=N(consume_from={'webhooks': 1})))));"
        "_load(N(app=N(amqp=N(queues=N(consume_from={'txt2img': 1})))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1, "jobs need numpy: pip install 'crossmodal-jobs[worker]'\n",
    )  # fmt: skip


def test_the_model_host_never_loads_celery() -> None:
    assert not loaded_by("import worker.host.server") & {"celery", "kombu", "billiard"}


def test_every_subcommand_can_be_loaded() -> None:
    from crossmodal.cli import COMMANDS, load

    for name in COMMANDS:
        assert callable(load(name)), name


def test_every_error_has_a_code_of_its_own() -> None:
    from crossmodal import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = [k.code for k in kinds if issubclass(k, errors.CrossmodalError)]
    assert len(set(codes)) == len(codes)
    tree = errors.__doc__ or ""
    assert all(k.__name__ in tree for k in kinds if issubclass(k, errors.CrossmodalError))


def test_every_code_has_a_row_in_the_operations_manual() -> None:
    from crossmodal import errors
    from crossmodal.local.stack import StackFailed

    manual = (ROOT / "docs" / "operations.md").read_text()
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = {k.code for k in kinds if issubclass(k, errors.CrossmodalError)}
    for code in codes | {StackFailed.code}:
        assert f"`{code}`" in manual, code


def test_no_script_is_without_its_header() -> None:
    folder = ROOT / "crossmodal" / "jobs"
    scripts = list(folder.glob("*.lua"))
    assert len(scripts) == 18
    for script in scripts:
        assert script.read_text().startswith("--"), script
