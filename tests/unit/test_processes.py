"""Child processes and what becomes of them when their parent dies."""

import os
import subprocess
import sys

import pytest

ENDS_WITHOUT = (
    "import os, signal; from crossmodal.processes import die_with_parent;"
    "die_with_parent(signal.SIGKILL, {parent}); print('lives on')"
)


def run_with(parent: str) -> subprocess.CompletedProcess[str]:
    code = ENDS_WITHOUT.format(parent=parent)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_a_child_whose_parent_died_before_it_could_say_so_ends() -> None:
    another = os.getppid()  # that of the process that was there when it was forked
    assert run_with(str(another)).returncode == os.EX_UNAVAILABLE
    assert run_with("os.getppid()").stdout == "lives on\n"
