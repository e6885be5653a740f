"""Bytes in an object store, reached with obstore: folders, S3, Google Cloud, Azure, memory.

Keys: `inputs/<aa>/<sha256>` for uploaded pictures, `results/<job>/…` for what jobs made.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, from_url

from crossmodal.errors import (
    BlobNotFound,
    ImageTooLarge,
    InvalidSetting,
    StorageNotWritable,
    StorageUnavailable,
)
from crossmodal.jobs.names import CHECKS, input_key
from crossmodal.jobs.params import BlobRef
from crossmodal.settings import Settings

SCHEMES = ("file", "memory", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
SIGNABLE = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")


@dataclass(frozen=True)
class StoredBlob:
    """What a store lists: a key, bytes, and when they were written, in seconds since the epoch."""

    key: str
    size: int
    modified_at: float


class Storage:
    """Put, get, sign and delete blobs; errors are `StorageUnavailable` and its kin."""

    def __init__(self, url: str, timeout_s: float = 15.0) -> None:
        self.url = url
        self._scheme = _scheme(url)
        self._store = _open(url, self._scheme, timeout_s)

    def put(self, key: str, data: bytes, media_type: str) -> BlobRef:
        """Store `data` whole or not at all, replacing what was there."""
        attributes = None if self._scheme == "file" else {"Content-Type": media_type}
        with self._errors(key, writing=True):
            obstore.put(self._store, key, data, attributes=attributes)
        digest = hashlib.sha256(data).hexdigest()
        return BlobRef(key=key, media_type=media_type, size=len(data), sha256=digest)

    def put_input(self, data: bytes, media_type: str) -> BlobRef:
        """Store an uploaded picture under its own digest."""
        return self.put(input_key(hashlib.sha256(data).hexdigest()), data, media_type)

    def get(self, blob: BlobRef, max_bytes: int | None = None) -> bytes:
        """The blob's bytes. Raises `BlobNotFound`, or `StorageUnavailable` for wrong bytes.

        With `max_bytes`, a larger blob is refused by its size, before it is read.
        """
        with self._errors(blob.key):
            response = obstore.get(self._store, blob.key)
            size = response.meta["size"]
            if max_bytes is not None and size > max_bytes:
                raise ImageTooLarge(
                    f"{blob.key!r} is {size} bytes, {max_bytes} are allowed: "
                    "shrink it, or raise CROSSMODAL_MAX_IMAGE_BYTES"
                )
            data = bytes(response.bytes())
        if blob.sha256 is not None and hashlib.sha256(data).hexdigest() != blob.sha256:
            raise StorageUnavailable(
                f"the bytes at {blob.key!r} do not have the digest {blob.sha256}: "
                "they were changed, or damaged on the way"
            )
        return data

    def sign(self, key: str, expires_in_s: float = 3_600) -> str | None:
        """A URL that lets anybody read the blob for a while; None where the store has none."""
        if self._scheme not in SIGNABLE:
            return None
        with self._errors(key):
            store: Any = self._store  # one that can sign: the scheme says so
            return str(obstore.sign(store, "GET", key, timedelta(seconds=expires_in_s)))

    def delete(self, key: str) -> None:
        """Remove a blob; removing one that is not there is no error."""
        with self._errors(key, writing=True):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    def list(self, prefix: str) -> Iterator[StoredBlob]:
        """All blobs in a folder and below it."""
        with self._errors(prefix):
            for chunk in obstore.list(self._store, prefix):
                for meta in chunk:
                    yield StoredBlob(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def head(self, key: str) -> StoredBlob | None:
        """What is stored under the key, without its bytes; None when nothing is."""
        try:
            with self._errors(key):
                meta = obstore.head(self._store, key)
        except BlobNotFound:
            return None
        return StoredBlob(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def check(self) -> None:
        """Write, read and delete a small blob. Raises `StorageUnavailable`."""
        key = f"{CHECKS}/{secrets.token_hex(8)}"
        blob = self.put(key, b"crossmodal", "text/plain")
        self.get(blob)
        self.delete(key)

    @contextmanager
    def _errors(self, key: str, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as e:
            if writing:
                raise StorageNotWritable(f"{self.url} cannot be written: {_first_line(e)}") from e
            raise BlobNotFound(f"there is nothing at {key!r} in {self.url}") from e
        except ValueError as e:
            raise BlobNotFound(f"{key!r} cannot be a key: {_first_line(e)}") from e
        except (PermissionError, exceptions.PermissionDeniedError) as e:
            raise StorageNotWritable(
                f"{self.url} refuses access to {key!r}: {_first_line(e)}. Check its permissions"
            ) from e
        except exceptions.UnauthenticatedError as e:
            raise StorageNotWritable(
                f"{self.url} does not accept the credentials: {_first_line(e)}"
            ) from e
        except (exceptions.BaseError, OSError, RuntimeError) as e:
            if writing and self._scheme == "file":
                raise StorageNotWritable(f"{self.url} cannot be written: {_first_line(e)}") from e
            raise StorageUnavailable(f"{self.url} failed on {key!r}: {_first_line(e)}") from e


def open_storage(settings: Settings) -> Storage:
    """The store that the settings name. Raises `InvalidSetting` or `StorageNotWritable`."""
    return Storage(settings.storage_url, settings.storage_timeout_s)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as e:
        raise InvalidSetting(f"CROSSMODAL_STORAGE_URL={url}: {e}") from e


def _open(url: str, scheme: str, timeout_s: float) -> ObjectStore:
    if scheme not in SCHEMES:
        raise InvalidSetting(
            f"CROSSMODAL_STORAGE_URL has the scheme {scheme!r}, which is not one of "
            f"{', '.join(SCHEMES)}: write for instance file:///var/lib/crossmodal"
        )
    if scheme == "file":
        return _open_folder(Path(unquote(urlsplit(url).path)))
    options: dict[str, Any] = {}
    if scheme != "memory":
        options["client_options"] = {
            "timeout": f"{timeout_s}s",
            "connect_timeout": f"{min(5.0, timeout_s)}s",
            "allow_http": _endpoint().startswith("http://"),  # asked for, as of a local store
        }
        options["retry_config"] = {"retry_timeout": timedelta(seconds=timeout_s)}
    try:
        return from_url(url, **options)
    except (exceptions.BaseError, ValueError) as e:
        raise InvalidSetting(f"CROSSMODAL_STORAGE_URL={url}: {_first_line(e)}") from e


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""


def _open_folder(folder: Path) -> LocalStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder)
    except OSError as e:
        raise StorageNotWritable(f"the folder {folder} cannot be used: {e}") from e


def _first_line(error: BaseException) -> str:
    """obstore appends a multi-line debug dump to its messages; the first line says it all."""
    return (str(error).splitlines() or [type(error).__name__])[0]
