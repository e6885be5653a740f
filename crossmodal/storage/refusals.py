"""Translation of an object store's errors to this project's, each with a one-line reason."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore import exceptions

from crossmodal.errors import BlobNotFound, StorageNotWritable, StorageUnavailable

MOST = 300  # characters of a store's message
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z' -]*[a-z])(?:: (.*))?", re.DOTALL)
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>|\(code: (\w{1,100})\)|\"reason\": ?\"(\w{1,100})\"")
_SAID = re.compile(r"<Message>([^<]+)</Message>|\"message\": ?\"([^\"]+)\"")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S+")
NO_KEY = ("File name too long", "Not a directory", "are not supported", "KeyTooLong")
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
DENIED = ("AccessDenied", "status code: 401", "status code: 403")
CAUSES = {  # found only in the debug dump after obstore's message
    "InvalidCertificate(": "its certificate is not trusted ({}): "
    "name the authority in CROSSMODAL_STORAGE_CA_FILE",
    "BadScheme": "plain http is used only if the endpoint's URL starts with http://",
    "ConnectionRefused": "connection refused",
    "failed to lookup address": "its name cannot be resolved",
    "TimedOut": "it did not answer in time",
    "No such file or directory": "a credentials file is missing",
}


@contextmanager
def translated(url: str, key: str, *, writing: bool, in_folder: bool) -> Iterator[None]:
    """Turn obstore's errors into `BlobNotFound`, `StorageNotWritable` or `StorageUnavailable`."""
    try:
        yield
    except FileNotFoundError as e:
        if not writing and not _names(e, NO_BUCKET):
            raise BlobNotFound(f"there is nothing at {key!r} in the store") from e
        raise StorageNotWritable(f"{url} cannot be written: {reason(e)}") from e
    except ValueError as e:
        raise BlobNotFound(f"{key!r} is not a valid key: {reason(e)}") from e
    except exceptions.UnauthenticatedError as e:
        raise StorageNotWritable(f"{url} does not accept the credentials: {reason(e)}") from e
    except (exceptions.BaseError, OSError, RuntimeError) as e:
        if not writing and _names(e, NO_KEY):
            raise BlobNotFound(f"{key!r} is not a valid key: {reason(e)}") from e
        if _is_denied(e):
            raise StorageNotWritable(
                f"{url} refuses access to {key!r}: {reason(e)}. Check permissions and credentials"
            ) from e
        if writing and in_folder:
            raise StorageNotWritable(f"{url} cannot be written: {reason(e)}") from e
        raise StorageUnavailable(f"{url} failed on {key!r}: {reason(e)}") from e


def _is_denied(error: BaseException) -> bool:
    kinds = (PermissionError, exceptions.PermissionDeniedError)
    return isinstance(error, kinds) or _names(error, DENIED)


def _names(error: BaseException, words: tuple[str, ...]) -> bool:
    return any(word in str(error) for word in words)


def reason(error: BaseException) -> str:
    """Return a store's reply, or why there was none, in one line without secrets."""
    text, _, dump = str(error).partition("\n\nDebug source")
    text = _QUERY.sub(r"\1", text)  # queries contain signatures and tokens
    if found := _STATUS.search(text):
        return _answered(*found.groups())
    first = (text.splitlines() or [type(error).__name__])[0][:MOST]
    for mark, cause in CAUSES.items():
        if mark in dump:
            detail = re.search(re.escape(mark) + r"\s*(\w+)", dump)
            return f"{first}: {cause.format(detail.group(1) if detail else '')}"
    return first


def _answered(status: str, body: str | None) -> str:
    code, said = _CODE.search(body or ""), _SAID.search(body or "")
    words = [next(filter(None, found.groups())) for found in (code, said) if found]
    if not words and body and not body.lstrip().startswith("<"):
        words = [body.strip().splitlines()[0]]
    return ": ".join([status, *(word.splitlines()[0][:MOST].rstrip(". ") for word in words)])
