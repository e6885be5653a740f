"""The addresses at which the programs of a stack listen, and checks of them."""

import os
import socket
from dataclasses import dataclass
from typing import Self

from crossmodal.errors import InvalidSetting, described

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - only compared with


@dataclass(frozen=True)
class Place:
    """The address and port of one program.

    They are set by `<variable>ADDRESS` and `<variable>PORT`, or by options if `variable` is empty.
    """

    name: str
    variable: str
    address: str
    port: int

    @property
    def remedy(self) -> str:
        """What to do if another program listens there."""
        if not self.variable:
            return "Give another --port"
        return f"Set {self.variable}PORT to another port, or do without it (--no-{self.name})"

    @classmethod
    def of(cls, name: str, variable: str, port: int) -> Self:
        """Read a place from the environment; `port` is the default. Raises `InvalidSetting`."""
        given = os.environ.get(f"{variable}PORT") or str(port)
        if not given.isdecimal() or not 0 < int(given) < 65_536:
            raise InvalidSetting(f"{variable}PORT is {given!r}: give a number from 1 to 65535")
        address = os.environ.get(f"{variable}ADDRESS") or "127.0.0.1"
        return cls(name, variable, address, int(given))

    @classmethod
    def gateway(cls) -> Self:
        """Return where the gateway will listen. Raises `InvalidSetting`."""
        return cls.of("gateway", "CROSSMODAL_GATEWAY_", 8000)

    @classmethod
    def flower(cls) -> Self:
        """Return where Flower will listen. Raises `InvalidSetting`."""
        return cls.of("flower", "FLOWER_", 5555)

    @property
    def url(self) -> str:
        return f"http://{self}"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    def check_free(self) -> None:
        """Raise `InvalidSetting` if its program could not listen there."""
        try:
            [family, kind, *_, where] = socket.getaddrinfo(
                self.address or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        except OSError as e:
            raise InvalidSetting(
                f"{self.name} cannot listen at {self}: {described(e)}. {self.remedy}"
            ) from e

    def answers(self) -> bool:
        """Return whether a program accepts connections there."""
        try:
            host = ANYWHERE.get(self.address, self.address)
            socket.create_connection((host, self.port), timeout=1).close()
        except OSError:
            return False
        return True
