"""Picture files as base64 text in JSON."""

import base64
import re
from string import whitespace
from urllib.parse import unquote_to_bytes

from crossmodal.errors import InvalidImage

_DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_STRANGE = re.compile(r"[^A-Za-z0-9+/_\s-]")  # characters that base64 does not have
_END = "=" + whitespace  # possibly millions of them
_URL_SAFE = str.maketrans("-_", "+/")


def decoded(text: object, where: str) -> bytes:
    """Decode base64: standard or URL-safe, with or without padding, or a `data:` URL.

    Raises `InvalidImage`, which names the field.
    """
    if not isinstance(text, str):
        raise InvalidImage(f"{where} is not base64: it is not a string")
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
    """Describe the first invalid character and its position, or else the wrong length.

    `before` is the length of the `data:` prefix, which counts in the position.
    """
    found = _STRANGE.search(text.rstrip(_END))
    if found is None:
        count = len("".join(text.split()).rstrip("="))
        return f"{count} characters are one too many or too few"
    return f"its character {before + found.start() + 1} is {found[0]!r}"
