"""Clocks that a storm may step: of all its processes, or of one worker alone.

A preloaded library (`clock.c`) adds an offset, read from a file, to the time. Monotonic clocks are
unchanged, and so is the clock of the storm itself.
"""

import shutil
import struct
import subprocess
from pathlib import Path

MACHINE = "machine"
_SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """The clocks by name; without gcc none can be stepped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "clock.so"
        self.may_step = shutil.which("gcc") is not None
        if self.may_step:
            argv = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", str(_SOURCE)]
            subprocess.run([*argv, "-o", str(self._library), "-ldl"], check=True, timeout=60)

    def environment(self, name: str = MACHINE) -> dict[str, str]:
        """Return the environment that makes a process, and all that it starts, use a clock."""
        if not self.may_step:
            return {}
        if not self._file(name).exists():
            self._write(name, 0)
        return {"LD_PRELOAD": str(self._library), "STORM_CLOCK": str(self._file(name))}

    def program(self, binary: str, name: str = MACHINE) -> str:
        """Return a wrapper of a program that uses a clock, for callers that set no environment."""
        wrapper = self._folder / f"{Path(binary).name}-by-{name}"
        given = [f"{variable}='{value}'" for variable, value in self.environment(name).items()]
        wrapper.write_text(f'#!/bin/sh\nexec env {" ".join(given)} "{binary}" "$@"\n')
        wrapper.chmod(0o700)
        return str(wrapper)

    def step(self, seconds: int, name: str = MACHINE) -> None:
        """Set a clock forward or back; the machine's moves all of them."""
        for file in self._folder.glob("*.clock"):
            if name in (MACHINE, file.stem):
                self._write(file.stem, self.offset(file.stem) + seconds)

    def offset(self, name: str = MACHINE) -> int:
        """Return the offset of a clock in seconds."""
        return int(struct.unpack("l", self._file(name).read_bytes())[0])

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"

    def _write(self, name: str, seconds: int) -> None:
        """Write the offset in place: processes have the file mapped into memory."""
        with self._file(name).open("r+b" if self._file(name).exists() else "wb") as file:
            file.write(struct.pack("l", seconds))
