"""Machines that lack a home, a writable disk, shared memory, descriptors or processes.

What can be done without them works; else one line names the remedy.
"""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.processes import Child, python_module
from producer import Client
from tests.commands import Done
from tests.conftest import need, settings_of
from tests.waiting import until

NOBODY = 54_321  # a user id that no system has
# May read root's Python, and write only where any user may.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
WITHOUT_HOME = ("env", "-u", "HOME", "-u", "XDG_DATA_HOME", "-u", "XDG_RUNTIME_DIR")
START_S = 400.0


@dataclass
class Machine:
    """A folder that may be written to, and the environment of a queue."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def env(self) -> dict[str, str]:
        return {
            "CELERY_BROKER_URL": valkey_url(self.port),
            "CELERY_RESULT_BACKEND": "",
            "CROSSMODAL_GATEWAY_PORT": str(free_port()),
            "FLOWER_PORT": str(free_port()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(Path.cwd()),
        }

    def run(self, lacks: tuple[str, ...], *command: str, **env: str) -> Done:
        """Run a command that ends at once, behind a prefix that takes something away."""
        argv = [*lacks, *python_module("crossmodal.cli", *command)]
        done = subprocess.run(
            argv,
            env={**os.environ, **self.env, **env},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def machine(short_path: Path) -> Machine:
    tools = all(shutil.which(tool) for tool in ("setpriv", "unshare", "prlimit", "chroot"))
    need(sys.platform == "linux" and os.getuid() == 0 and tools, "root, and util-linux")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to have a mount namespace")  # also where CI=true
    short_path.chmod(0o777)
    return Machine(short_path)


def read_only(folder: Path) -> tuple[str, ...]:
    """Return a prefix: all file systems are read-only but for a folder, without /dev/shm."""
    inside, here = "/mnt", shlex.quote(str(Path.cwd()))
    steps = [
        f"mount --rbind / {inside}",
        f"mount -o remount,bind,ro {inside}",
        f"mount --bind {folder} {inside}{folder}",
        f"umount -l {inside}/dev/shm || true",
        f"mount -t tmpfs -o ro none {inside}/dev/shm",
        f'exec chroot {inside} sh -c "cd {here} && exec \\"\\$@\\"" sh "$@"',
    ]
    return ("unshare", "-m", "sh", "-ec", " && ".join(steps), "sh")


def check_told(done: Done, *words: str) -> None:
    line = done.stderr.removesuffix("\n")
    assert (done.returncode, line.count("\n")) == (2, 0), done.stderr
    assert all(word in line for word in words), line


def test_who_has_no_home_is_told_what_to_set(machine: Machine) -> None:
    lacks = (*AS_NOBODY, *WITHOUT_HOME)
    check_told(machine.run(lacks, "up"), "Permission denied", "set XDG_DATA_HOME")


def test_a_file_system_that_is_read_only_is_said_with_what_to_set(machine: Machine) -> None:
    lacks = (*read_only(machine.folder), *WITHOUT_HOME)
    check_told(machine.run(lacks, "up"), "Read-only file system", "set XDG_DATA_HOME")
    kept = {"XDG_DATA_HOME": str(machine.folder)}
    check_told(machine.run(read_only(machine.folder), "up", **kept), "set TMPDIR")
    worker = machine.run(read_only(machine.folder), "worker", "--devices", "cpu", **kept)
    check_told(worker, "CROSSMODAL_RUN_DIR", "Read-only file system")


def test_too_few_processes_and_threads_are_said_before_anything_starts(machine: Machine) -> None:
    lacks = (*AS_NOBODY, "prlimit", "--nproc=8")
    for command in (
        ("up",),
        ("worker", "--devices", "cpu"),
        ("gateway",),
        ("mcp",),
        ("background",),
    ):
        done = machine.run(lacks, *command, XDG_DATA_HOME=str(machine.folder))
        check_told(done, "processes and threads: raise the limit", "--pids-limit")


def test_a_gateway_without_a_folder_for_temporary_files_says_so(machine: Machine) -> None:
    kept = {"XDG_DATA_HOME": str(machine.folder)}
    check_told(machine.run(read_only(machine.folder), "gateway", **kept), "set TMPDIR")


def test_too_few_files_are_said(machine: Machine) -> None:
    lacks = ("prlimit", "--nofile=127")
    done = machine.run(lacks, "up", XDG_DATA_HOME=str(machine.folder))
    check_told(done, "a worker needs 128 open files, 127 are allowed", "ulimit -n")


@pytest.mark.timeout(600)
def test_a_whole_stack_runs_without_home_disk_shared_memory_and_many_files(
    machine: Machine,
) -> None:
    """There is only a folder for its data and temporary files."""
    folder, env = machine.folder, machine.env
    env |= {"XDG_DATA_HOME": str(folder), "TMPDIR": str(folder)}
    log = folder / "log"
    lacks = (*read_only(folder), *AS_NOBODY, "env", "-u", "HOME", "prlimit", "--nofile=128")
    with log.open("wb") as output:
        up = Child("up", [*lacks, *python_module("crossmodal.cli", "up")], env, output=output)
        up.start()
    try:
        until(lambda: "ready in" in log.read_text() or not up.is_alive, START_S)
        assert up.is_alive, log.read_text()
        store = (folder / "crossmodal" / "storage").as_uri()
        with Client(settings_of(env | {"CROSSMODAL_STORAGE_URL": store})) as client:
            jobs = [client.txt2img("a red circle", seed=i) for i in range(30)]
            assert {job.wait(timeout_s=START_S) for job in jobs} == {"succeeded"}
            caption = client.img2txt(client.read(jobs[0].result().images[0]))
            assert caption.result(timeout_s=START_S).captions
    finally:
        up.stop(60)
