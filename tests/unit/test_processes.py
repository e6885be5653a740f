"""Child processes and what becomes of them when their parent dies."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
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


ENDS_WITH_ITS_TERMINAL = (
    "import time; from crossmodal.processes import treat_sigterm_as_interrupt;"
    "treat_sigterm_as_interrupt(); print('ready', flush=True); print(input())"
)


@pytest.mark.parametrize(("start", "status"), [([], -signal.SIGINT), (["nohup"], 0)])
def test_who_loses_the_terminal_ends_in_order_unless_started_by_nohup(
    start: list[str], status: int
) -> None:
    with subprocess.Popen(
        [*start, sys.executable, "-c", ENDS_WITH_ITS_TERMINAL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # whoever runs the tests
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        if status == 0:
            assert process.communicate("still here\n", 30)[0] == "still here\n"
        assert process.wait(30) == status


def is_namespaced() -> bool:
    if sys.platform != "linux":
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode == 0


@pytest.mark.skipif(not is_namespaced(), reason="process ids of one's own need root, on Linux")
def test_the_first_process_of_a_container_ends_when_told_to_while_it_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        env = {
            **os.environ,
            "CELERY_BROKER_URL": url,
            "CROSSMODAL_CONNECT_TIMEOUT_S": "60",
            "CROSSMODAL_RUN_DIR": str(tmp_path),
        }
        outer = subprocess.Popen(
            [
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                sys.executable,
                "-m",
                "crossmodal.cli",
                "worker",
            ],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with silent.accept()[0]:  # Redis is given a minute to answer
            [inner] = psutil.Process(outer.pid).children()
            inner.terminate()
            assert outer.wait(30) == 128 + signal.SIGINT
