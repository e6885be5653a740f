"""Which devices there are, and how a process is pinned to one. Never imports torch."""

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from crossmodal.errors import InvalidSetting
from crossmodal.settings import runtime_dir

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Device:
    """One device as the supervisor names it: `cpu`, `cuda:0`, `cuda:1`, …"""

    name: str

    @property
    def slug(self) -> str:
        """The name as part of a worker's or a file's name."""
        return self.name.replace(":", "")

    @property
    def torch_name(self) -> str:
        """The pinned process's name for it: its only GPU is its first one."""
        return self.name.partition(":")[0]

    def environment(self) -> dict[str, str]:
        """Return variables that let a model host see this device and no other."""
        kind, _, index = self.name.partition(":")
        if kind == "cpu":
            return {"CUDA_VISIBLE_DEVICES": ""}
        visible = [v for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if v]
        return {"CUDA_VISIBLE_DEVICES": visible[int(index)] if visible else index}


def parse_devices(text: str) -> list[Device]:
    """Parse `auto` (every GPU, or the CPU if there is none) or a list such as `cuda:0,cuda:1`.

    Raises `InvalidSetting` for a name that is no device, or a GPU that does not exist.
    """
    gpus = gpu_names()
    if text == "auto":
        return [Device(f"cuda:{i}") for i in range(len(gpus))] or [Device("cpu")]
    devices = [_parse_one(name.strip(), len(gpus)) for name in text.split(",")]
    if len(set(devices)) < len(devices):
        raise InvalidSetting(f"--devices {text} names a device twice; one model host serves each")
    return devices


def _parse_one(name: str, gpus: int) -> Device:
    kind, _, index = name.partition(":")
    if name == "cpu":
        return Device(name)
    if kind == "cuda" and index.isdecimal() and int(index) < gpus:
        return Device(name)
    raise InvalidSetting(
        f"the device {name!r} cannot be used: there are {gpus} GPUs here. "
        "Give auto, cpu, or GPUs such as cuda:0,cuda:1"
    )


def gpu_names() -> list[str]:
    """Return the model names of the NVIDIA GPUs that this process may use."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # without a working driver no GPU is usable
        return []
    return _visible(listing.stdout.splitlines(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _visible(names: list[str], visible: str | None) -> list[str]:
    """Return the GPUs that CUDA would show: it stops at the first invalid entry."""
    if visible is None:
        return names
    shown: list[str] = []
    for entry in map(str.strip, visible.split(",")):
        if entry.startswith(("GPU-", "MIG-")):
            shown.append(entry)
        elif entry.isdecimal() and int(entry) < len(names):
            shown.append(names[int(entry)])
        else:
            break
    return shown


def default_socket(slug: str) -> Path:
    """Return the default socket path of a model host."""
    return runtime_dir() / f"host-{slug}.sock"


def cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return the cores that this process may use: in a container, often fewer than the machine's.

    Respects CPU affinity and the quotas of its control group and that group's parents (cgroup v2;
    with v1, the container's), rounded up.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    found = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min([found, *map(math.ceil, _quotas(cgroup, membership))]))


def _quotas(cgroup: Path, membership: Path) -> list[float]:
    """Return the CPU quota of each group that has one, in cores."""
    own = cgroup / _group(membership)
    around = [folder for folder in (own, *own.parents) if folder.is_relative_to(cgroup)]
    texts = [_read(folder / "cpu.max") for folder in around]
    v1 = (_read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return [quota for text in (*texts, " ".join(v1)) if (quota := _quota(text)) is not None]


def _group(membership: Path) -> str:
    """Return the path of this process's v2 group; inside a container, mostly the root."""
    lines = _read(membership).splitlines()
    return next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")


def _quota(text: str) -> float | None:
    try:
        quota, period = text.split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # no quota is set
        return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # there is no such group, or it has no limits
        return ""
