"""The `crossmodal` command in the process of the tests: what it prints, and how it ends."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

import pytest

from crossmodal.cli import main


@dataclass(frozen=True)
class Done:
    """How a command has ended, as `subprocess.CompletedProcess` tells it."""

    returncode: int
    stdout: str
    stderr: str


def run_command(env: Mapping[str, str], *args: str) -> Done:
    """Run a command to its end, with `env` on top of the environment; an exception is raised."""
    out, err, status = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as here, redirect_stdout(out), redirect_stderr(err):
        here.setattr(sys, "argv", ["crossmodal", *args])
        for name, value in env.items():
            here.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(status, out.getvalue(), err.getvalue())
