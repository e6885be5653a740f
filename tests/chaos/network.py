"""Hosts on one machine: network namespaces, each with an address, joined by a bridge.

The bridge is in a namespace of its own: it is invisible outside, and no traffic leaves it.
"""

import ctypes
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


@dataclass
class Network:
    """A switch with hosts `1` to `size`; without `with` they outlive this process."""

    size: int
    prefix: str = field(default_factory=lambda: f"cm-{uuid.uuid4().hex[:6]}")

    def __enter__(self) -> "Network":
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, host: int) -> str:
        return f"10.77.0.{host}"

    def within(self, host: int) -> list[str]:
        """Return the prefix of a command that runs it on a host, with the host's name."""
        rename = 'hostname "$0" && exec "$@"'
        name = f"host{host}"
        return ["ip", "netns", "exec", self._of(host), "unshare", "--uts", "sh", "-c", rename, name]

    def enter(self, host: int) -> None:
        """Move this thread, and those it starts from now on, to a host."""
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(NETNS / self._of(host), os.O_RDONLY)
        try:
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def plug(self, host: int, up: bool) -> None:
        """Pull a host's cable at the switch, or put it in again."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "up" if up else "down")

    def close(self) -> None:
        for name in (self._switch, *map(self._of, range(1, self.size + 1))):
            with suppress(subprocess.CalledProcessError):  # it was never made
                _ip("netns", "del", name)

    def _make(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        for host in range(1, self.size + 1):
            self._add(host)

    def _add(self, host: int) -> None:
        name, port = self._of(host), f"port{host}"
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")

    @property
    def _switch(self) -> str:
        return f"{self.prefix}-switch"

    def _of(self, host: int) -> str:
        return f"{self.prefix}-host{host}"


def can_make_networks() -> bool:
    """Return whether this process may make network namespaces, and bridges in them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Network(1):
            return True
    except subprocess.CalledProcessError:
        return False


def _ip(*words: str) -> None:
    argv: Sequence[str] = ["ip", *words]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
