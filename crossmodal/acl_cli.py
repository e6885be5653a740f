"""`crossmodal redis-acl`: prints Redis ACL users with the least rights that they need."""

import re
from pathlib import Path
from typing import Annotated

import typer

from crossmodal.console import errors_to_exit_status, say
from crossmodal.errors import InvalidSetting, described
from crossmodal.jobs.acl import Role, hashed, rules, user_line
from crossmodal.settings import load_settings

# Without this line, Redis keeps its user `default` on, with all rights and no password.
DEFAULT_OFF = "user default off"
ADMIN = ("~*", "&*", "+@all")


def redis_acl(
    role: Annotated[Role | None, typer.Option(help="Only this one. (both)")] = None,
    user: Annotated[str | None, typer.Option(help="Its name. (PREFIX-ROLE)")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Its first line is the password; printed as a digest.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="(CROSSMODAL_KEY_PREFIX)")] = None,
    server: Annotated[
        str | None, typer.Option(help="Version of a Redis older than 7.2: 6.2 or 7.0.")
    ] = None,
) -> None:
    """Print an ACL file: an admin, a producer and a worker; `default` is off.

    Without a password file, replace PASSWORD in each line.

    With `--role`, print only that user's line, to add to a file.

    `ACL SETUSER` takes the line without its first word.
    """
    with errors_to_exit_status():
        settings = load_settings(key_prefix=prefix)
        if (user or password_file) and role is None:
            raise InvalidSetting("--user and --password-file are for one user: give --role too")
        secret = _secret(password_file)
        if role is None:
            say(DEFAULT_OFF)
            say(user_line("admin", secret, ADMIN))
        for each in [role] if role else Role:
            name = user or f"{settings.key_prefix}-{each}"
            say(user_line(name, secret, rules(settings, each, _version(server))))


def _secret(file: Path | None) -> str:
    if file is None:
        return ">PASSWORD"
    try:
        password = file.read_text().partition("\n")[0]
    except OSError as e:
        raise InvalidSetting(f"--password-file {file}: {described(e)}") from e
    if not password:
        raise InvalidSetting(f"--password-file {file}: its first line is empty")
    return hashed(password)


def _version(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise InvalidSetting(f"--server {text!r}: give a version, such as 7.0")
    return int(found[1]), int(found[2])
