"""What the gateway's command says of itself, and `crossmodal up` when it cannot start it."""

import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal.local.stack import Stack, StackFailed


def test_a_process_that_has_no_port_just_says_how_it_ended(tmp_path: Path) -> None:
    with Stack({}) as stack:
        stack.start("worker", [sys.executable, "-c", "raise SystemExit(3)"], 5)
        with pytest.raises(StackFailed, match=r"^worker ended with status 3$"):
            stack.wait_ready(tmp_path / "never")


def test_the_help_says_when_keys_are_asked_for() -> None:
    command = [sys.executable, "-m", "crossmodal.cli", "gateway", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = " ".join(shown.replace("│", " ").split())
    assert "Ask for API keys (by default only where not on loopback)." in words
