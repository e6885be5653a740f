"""A picture's file that is written as text, where JSON has no bytes."""

import base64
import re
from string import whitespace
from urllib.parse import unquote_to_bytes

from crossmodal.errors import InvalidImage

_DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_STRANGE = re.compile(r"[^A-Za-z0-9+/_\s-]")  # in base64
_END = "=" + whitespace  # of which there may be millions
_URL_SAFE = str.maketrans("-_", "+/")


def decoded(text: object, where: str) -> bytes:
    """The bytes of base64, also of its URL-safe form, without padding, or as a `data:` URL.

    Raises `InvalidImage`, which names the field.
    """
    if not isinstance(text, str):
        raise InvalidImage(f"{where} is not base64: it is no string")
    if url := _DATA_URL.match(text):
        if not url[1].lower().endswith(";base64"):
            raise InvalidImage(f"{where} is a data: URL that is not base64: write data:…;base64,…")
        text = unquote_to_bytes(text[url.end() :]).decode("latin-1")
    plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as e:
        fault = _fault(text, url.end() if url else 0)
        raise InvalidImage(
            f"{where} is not base64: {fault}: write the picture's file as base64, or as a data: URL"
        ) from e


def _fault(text: str, before: int) -> str:
    """The first character that base64 has not, and its place; else how many there are.

    `before` the text there are so many characters of a `data:` URL.
    """
    found = _STRANGE.search(text.rstrip(_END))
    if found is None:
        return f"{len(''.join(text.split()).rstrip('='))} characters are one too many"
    return f"its character {before + found.start() + 1} is {found[0]!r}"
