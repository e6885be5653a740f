"""Classifies IP addresses by the IANA registries of special-purpose addresses."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # as users write it

# The first match counts: the broad reserved ranges come last.
_KINDS = {
    "the metadata of a cloud": "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 "
    "fd00:ec2::/32 fd20:ce::254",
    "loopback": "127.0.0.0/8 ::1",
    "a private network": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
    "a carrier's own network": "100.64.0.0/10",
    "unspecified": "0.0.0.0/8 ::",
    "link-local": "169.254.0.0/16 fe80::/10",
    "site-local": "fec0::/10",
    "multicast": "224.0.0.0/4 ff00::/8",
    "broadcast": "255.255.255.255",
    "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
    "for benchmarks": "198.18.0.0/15 2001:2::/48",
    "IPv4 in IPv6": "::ffff:0:0/96 ::ffff:0:0:0/96 ::/96",
    "NAT64": "64:ff9b::/96 64:ff9b:1::/48",
    "6to4": "192.88.99.0/24 2002::/16",
    "Teredo": "2001::/32",
    "reserved": "192.0.0.0/24 240.0.0.0/4 2001::/23 ::/3 4000::/2 8000::/1",
}
_PRIVATE = ("loopback", "a private network", "a carrier's own network")
_TABLE = [
    (ip_network(network), kind) for kind, networks in _KINDS.items() for network in networks.split()
]


def refusal(address: Address, allow_private: bool = False) -> str | None:
    """Return why connecting to an address is refused; None for a public one.

    `allow_private` allows loopback and private networks only.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "of one zone only"
    kind = next((kind for network, kind in _TABLE if address in network), None)
    if allow_private and kind in _PRIVATE:
        return None
    return kind or (None if address.is_global else "not public")


def literal(host: str) -> Address | None:
    """Return the address of a host written as one; None for a name."""
    with suppress(ValueError):
        return ip_address(host)
    return None
