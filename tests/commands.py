"""The `crossmodal` command, run in the process of the tests."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from unittest.mock import patch

from crossmodal.cli import main


@dataclass(frozen=True)
class Done:
    """The outcome of a command, like `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str  # undecodable bytes as surrogates
    stderr: str


def run_command(env: Mapping[str, str], *args: str) -> Done:
    """Run a command to its end, with `env` added to the environment and its output captured.

    An exception other than SystemExit propagates.
    """
    out, err, status = _pipe(), _pipe(), 0
    with _own_process(["crossmodal", *args], env), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(status, _read(out), _read(err))


@contextmanager
def _own_process(argv: list[str], env: Mapping[str, str]) -> Iterator[None]:
    """Set argv and environment, and restore afterwards what a command changes in its process."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # As in a terminal: in a test run started in the background, SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with patch.object(sys, "argv", argv), patch.dict(os.environ, env):
            yield
    finally:
        root.handlers[:], sys.excepthook = handlers, hook
        root.setLevel(level)
        logging.captureWarnings(False)
        for number, handler in signals.items():
            signal.signal(number, handler)


def _pipe() -> TextIOWrapper:
    return TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True)


def _read(pipe: TextIOWrapper) -> str:
    assert isinstance(pipe.buffer, BytesIO)
    return pipe.buffer.getvalue().decode(errors="surrogateescape")
