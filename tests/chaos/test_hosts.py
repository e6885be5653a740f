"""The network that `make hosts` runs on. The trial itself takes minutes, and is run by hand."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from crossmodal.processes import Child
from tests.chaos.hosts import host_of
from tests.chaos.network import NETNS, Network, can_make_networks
from tests.conftest import need
from tests.waiting import until

PORT = 7000
LISTEN = f"import socket\nserver = socket.create_server(('', {PORT}))\nwhile True: server.accept()"
CONNECT = f"import socket, sys; socket.create_connection((sys.argv[1], {PORT}), 1)"


@pytest.fixture
def network() -> Iterator[Network]:
    # Not `need`: CI may run in a container without root, or where this is not allowed.
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    need(shutil.which("ip") is not None, "ip, of iproute2")
    if not can_make_networks():
        pytest.skip("network namespaces are not allowed here")
    with Network(2) as network:
        yield network


def reaches(network: Network, host: int, address: str) -> bool:
    argv = [*network.within(host), sys.executable, "-c", CONNECT, address]
    return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0


def test_hosts_reach_each_other_while_their_cables_are_in(network: Network) -> None:
    listener = Child("listener", [*network.within(2), sys.executable, "-c", LISTEN])
    listener.start()
    try:
        address = network.address(2)
        until(lambda: reaches(network, 1, address), 30)
        network.plug(2, up=False)
        assert not reaches(network, 1, address)
        network.plug(2, up=True)
        until(lambda: reaches(network, 1, address), 30)
    finally:
        listener.kill()


def test_a_host_has_a_name_of_its_own(network: Network) -> None:
    argv = [*network.within(2), "hostname"]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"host2\n"
    assert host_of("cpu.123@host2") == 2


def test_nothing_is_left_of_a_network(network: Network) -> None:
    assert list(NETNS.glob(f"{network.prefix}-*"))
    network.close()
    assert not list(NETNS.glob(f"{network.prefix}-*"))
