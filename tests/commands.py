"""The `crossmodal` command, run within the test's own process."""

import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from crossmodal.cli import main
from crossmodal.settings import Settings


@dataclass(frozen=True)
class Done:
    """What an ended command left: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


def crossmodal(*args: str, **env: str) -> Done:
    """Run `crossmodal ARGS…` with some variables set, its output being a pipe."""
    out, err = _pipe(), _pipe()
    status: object = 0
    with _process(["crossmodal", *args], env), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as e:
            status = e.code or 0
    assert isinstance(status, int), status
    return Done(status, _read(out), _read(err))


def environment(settings: Settings) -> dict[str, str]:
    """The variables that lead a command to what these settings lead to."""
    return {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CELERY_RESULT_BACKEND": "",
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
    }


@contextmanager
def _process(argv: list[str], env: dict[str, str]) -> Iterator[None]:
    """What a command changes of its process is as before afterwards."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patch.object(sys, "argv", argv), patch.dict(os.environ, env):
            yield
    finally:
        root.handlers[:], sys.excepthook = handlers, hook
        root.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)
        logging.captureWarnings(False)


def _pipe() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _read(pipe: io.TextIOWrapper) -> str:
    pipe.seek(0)
    return pipe.read()
