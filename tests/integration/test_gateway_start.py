"""What the gateway's command says of itself, and `crossmodal up` when it cannot start it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal.local.stack import Stack, StackFailed
from crossmodal.settings import Settings


def test_a_port_that_is_taken_is_told_with_what_to_do(settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as other, (tmp_path / "log").open("wb") as log:
        other.bind(("127.0.0.1", 0))
        other.listen()
        env = {
            "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
            "CROSSMODAL_STORAGE_URL": settings.storage_url,
            "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
            "CROSSMODAL_GATEWAY_PORT": str(other.getsockname()[1]),
        }
        with Stack(env, log) as stack:
            stack.start_gateway()
            with pytest.raises(StackFailed, match=r"CROSSMODAL_GATEWAY_PORT.*--no-gateway"):
                stack.wait_ready(tmp_path / "never")


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
