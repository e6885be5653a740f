"""What the gateway's command says of itself, and `crossmodal up` when it cannot start it."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.local.places import Place
from crossmodal.local.stack import Stack, StackFailed
from crossmodal.processes import python_module
from crossmodal.settings import Settings
from tests.waiting import until


def test_a_process_that_has_no_port_just_says_how_it_ended(tmp_path: Path) -> None:
    with Stack({}) as stack:
        stack.start("worker", [sys.executable, "-c", "raise SystemExit(3)"], 5)
        with pytest.raises(StackFailed, match=r"^worker ended with status 3$"):
            stack.wait_ready(tmp_path / "never")


def test_the_help_says_when_keys_are_asked_for() -> None:
    command = [sys.executable, "-m", "crossmodal.cli", "gateway", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = " ".join(shown.replace("│", " ").split())
    assert "Require API keys (default: unless on loopback)." in words


def test_what_is_printed_is_the_url(settings: Settings, tmp_path: Path) -> None:
    """Of an IPv6 address in brackets, with the port that it was given."""
    env = {
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_STORAGE_URL": settings.storage_url,
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
    }
    log = tmp_path / "gateway.log"
    argv = python_module("crossmodal.cli", "gateway", "--address", "::1", "--port", "0")
    with log.open("wb") as output, Stack(env, output) as stack:
        child = stack.start("gateway", argv, 20)
        until(lambda: "running on" in log.read_text() or not child.is_alive, what="its start")
        found = re.search(r"http://\[::1\]:[1-9]\d*", log.read_text())
        assert found, log.read_text()
        assert httpx2.get(f"{found[0]}/livez", timeout=30).text == "ok\n"


def test_who_cannot_listen_says_where_as_a_url_has_it() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        place = Place("gateway", "CROSSMODAL_GATEWAY_", "::1", port)
        assert place.url == f"http://[::1]:{port}"
        with pytest.raises(InvalidSetting, match=rf"cannot listen at \[::1\]:{port}: "):
            place.check_free()
