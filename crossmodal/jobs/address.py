"""The broker URL: parsed once, for redis-py, Celery and Flower.

    redis://user:password@host:6379/0
    rediss://user:password@host:6380/0?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key
    sentinel://user:password@one:26379/0;sentinel://two:26379;sentinel://three:26379

The three differ: kombu verifies no certificate on `rediss://` without options, Celery's result
backend refuses such a URL, Flower ignores all options, and none of them distinguishes a Sentinel's
user from its master's. Here the URL is parsed once; each then gets a form that it understands.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from crossmodal.errors import InvalidSetting, described

Scheme = Literal["redis", "rediss", "sentinel"]
PORTS: Mapping[str, int] = {"redis": 6379, "rediss": 6379, "sentinel": 26379}
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
OPTIONS = (*FILES, "ssl_check_hostname", "ssl_cert_reqs")
VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True)
class Address:
    """A parsed broker URL. With Sentinel, `hosts` are Sentinels; all else is the master's."""

    scheme: Scheme
    hosts: tuple[tuple[str, int], ...]
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, Any] | None = None
    """Keyword arguments of redis-py's and of Celery's TLS connections; None: no TLS."""

    @property
    def is_sentinel(self) -> bool:
        return self.scheme == "sentinel"

    @property
    def account(self) -> dict[str, Any]:
        """Return redis-py's arguments for user, password and database."""
        return {"username": self.username, "password": self.password, "db": self.db}

    @property
    def public_url(self) -> str:
        """Return the URL without user, password, database and options, which Celery may log."""
        return ";".join(f"{self.scheme}://{_netloc(host, port)}" for host, port in self.hosts)

    @property
    def private_url(self) -> str:
        """Return the URL without options, with login and database at every host, for Celery."""
        user, password = quote(self.username or "", safe=""), quote(self.password or "", safe="")
        login = f"{user}:{password}@" if user or password else ""
        return ";".join(
            f"{self.scheme}://{login}{_netloc(host, port)}/{self.db}" for host, port in self.hosts
        )


def parse_address(url: str, variable: str = "CELERY_BROKER_URL") -> Address:
    """Parse a URL. Raises `InvalidSetting`, whose message never contains a password."""
    try:
        return _parse(url)
    except (ValueError, OSError) as e:
        raise InvalidSetting(f"{variable} is not a Redis URL: {e}") from e


def _parse(url: str) -> Address:
    try:
        parts = [urlsplit(part) for part in url.split(";")]
    except ValueError:  # its message would contain the login
        raise ValueError("it cannot be parsed; percent-encode special characters in it") from None
    first = parts[0]
    schemes = {part.scheme for part in parts}
    if len(schemes) != 1 or first.scheme not in get_args(Scheme):
        raise ValueError(
            "each of its parts must begin with redis://, rediss:// or sentinel://, all with the "
            "same"
        )
    if len(parts) > 1 and first.scheme != "sentinel":
        raise ValueError("only sentinel:// may have more than one host")
    options = {name: value for part in parts for name, value in parse_qsl(part.query)}
    encrypted = first.scheme == "rediss" or (first.scheme == "sentinel" and bool(options))
    if options and not encrypted:
        raise ValueError(f"{next(iter(options))} is for rediss:// and sentinel:// only")
    paths = {part.path.strip("/") for part in parts} - {""}
    if len(paths) > 1:
        raise ValueError("its parts have different databases")
    return Address(
        scheme=first.scheme,  # type: ignore[arg-type]  # checked above
        hosts=tuple((part.hostname or "127.0.0.1", _port(part)) for part in parts),
        db=_database(paths.pop() if paths else "0"),
        username=unquote(first.username) if first.username else None,
        password=unquote(first.password) if first.password else None,
        tls=_tls(options) if encrypted else None,
    )


def _port(part: SplitResult) -> int:
    try:
        return part.port or PORTS[part.scheme]
    except ValueError:  # its message could contain part of a password
        raise ValueError("its port is not a number below 65536") from None


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"its database {text[:20]!r} is not a number")
    return int(text)


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    if unknown := set(options) - set(OPTIONS):
        raise ValueError(f"{min(unknown)} is not an option; known ones are {', '.join(OPTIONS)}")
    wanted = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if wanted not in VERIFY:
        raise ValueError(f"ssl_cert_reqs is {wanted[:20]!r}: choose from {', '.join(VERIFY)}")
    named = options.get("ssl_check_hostname", "true").lower()
    if named not in ("true", "false"):
        raise ValueError(f"ssl_check_hostname is {named[:20]!r}: choose true or false")
    files = {name: options[name] for name in FILES if name in options}
    _check_files(files)
    reqs = VERIFY[wanted]
    named_too = named == "true" and reqs != ssl.CERT_NONE
    return {**files, "ssl_cert_reqs": reqs, "ssl_check_hostname": named_too}


def _check_files(files: Mapping[str, str]) -> None:
    """Load each file once, so that an error names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    try:
        if "ssl_ca_certs" in files:
            context.load_verify_locations(files["ssl_ca_certs"])
    except OSError as e:
        raise ValueError(
            f"ssl_ca_certs={files['ssl_ca_certs']} cannot be used: {described(e)}"
        ) from e
    try:
        if "ssl_certfile" in files:
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except OSError as e:
        raise ValueError(
            f"ssl_certfile={files['ssl_certfile']} cannot be used: {described(e)}"
        ) from e


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
