"""What the README says is done here as it says it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import RunningStack

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_python_example_works(stack: RunningStack, tmp_path: Path) -> None:
    example = re.findall(r"```python\n(from crossmodal.*?)```", README, re.DOTALL)[0]
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, **stack.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "red circle" in done.stdout


def test_the_own_model_in_ten_lines_is_served(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(import numpy.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    folder = tmp_path / "models" / "stripes"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    command = [sys.executable, "-m", "crossmodal.cli", "models", "check", str(folder), "--json"]
    env = {**os.environ, "CROSSMODAL_ALLOW_MODEL_CODE": "stripes"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"txt2img"' in done.stdout


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"^[A-Z0-9_]{4,}$", README, re.MULTILINE)
