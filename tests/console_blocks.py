"""Console blocks of a page: commands after `$`, their output, and a shell that runs them.

Numbers and ids in the output may differ from the page; a line `…` stands for any lines.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
NUMBER = re.compile(r"\d[\d,.]*")
ANY = "…"
END = "--end of a command--"


@dataclass
class Command:
    """A typed command, and the lines that it prints."""

    typed: str
    printed: list[str] = field(default_factory=list)


def commands_of(page: str) -> list[Command]:
    """Return all commands of a page's console blocks, in order."""
    found: list[Command] = []
    for line in (line for block in BLOCK.findall(page) for line in block.splitlines()):
        if line.startswith("$ "):
            found.append(Command(line[2:].partition("  # ")[0].strip()))
        elif line.startswith("> "):
            found[-1].typed += f"\n{line[2:]}"
        elif line.strip():
            found[-1].printed.append(line)
    return found


def differences(expected: list[str], printed: list[str]) -> list[str]:
    """Return expected lines that were not printed in order, and surplus printed ones."""
    missing, at, is_free = [], 0, False
    shown = [_shape(line) for line in printed if line.strip()]
    for line in expected:
        if line.strip() == ANY:
            is_free = True
            continue
        later = shown[at:] if is_free else shown[at : at + 1]
        if _shape(line) in later:
            at += later.index(_shape(line)) + 1
            is_free = False
        else:
            missing.append(line)
            is_free = True  # else one wrong line would count as many
    if not is_free and not missing:
        missing += [f"not on the page: {line}" for line in shown[at:]]
    return missing


def _shape(line: str) -> str:
    """Return a line without what differs between runs."""
    return " ".join(NUMBER.sub("0", ID.sub("ID", line)).split())


class Shell:
    """One shell for all commands, as for a reader; standard error goes to the output."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**os.environ, **env},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.communicate("exit\n", timeout=60)

    def run(self, typed: str) -> tuple[int, list[str]]:
        """Run a command; return its exit status and the lines that it printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{typed}\necho "{END}$?"\n')
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            before, is_end, status = line.rstrip("\n").partition(END)
            lines += [before] if before else []
            if is_end:
                return int(status), lines
        raise AssertionError(f"the shell ended in {typed!r}: {lines}")
