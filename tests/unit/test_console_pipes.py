"""Commands whose output nobody reads to its end."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from crossmodal.console import FAILED, UNREAD
from crossmodal.processes import python_module

COMMANDS = [["--help"], ["--version"], ["settings"], ["settings", "--json"], ["redis-acl"]]
MANY = ["settings", "--markdown"]  # more lines than a pipe holds


def run(args: Sequence[str], stdout: int) -> "subprocess.CompletedProcess[str]":
    command = python_module("crossmodal.cli", *args)
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(args: list[str]) -> None:
    """As of `crossmodal jobs | head -1`: the status is that of any program which SIGPIPE ends."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(args, writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (UNREAD, "")


@pytest.mark.parametrize("args", [*COMMANDS, ["queue", "--help"]], ids=" ".join)
def test_a_full_disk_is_said_in_one_line(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(args, full.fileno())
    line = "standard output cannot be written: No space left on device"
    assert done.returncode == FAILED
    assert line in done.stderr.strip()
    assert done.stderr.count("\n") == 1


def test_what_is_read_is_whole() -> None:
    done = run(MANY, subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("|\n")


def test_no_standard_output_at_all_is_no_error() -> None:
    """As of a service manager that closes it."""
    command = [*python_module("crossmodal.cli", "--version")]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
