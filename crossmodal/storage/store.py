"""The object store's operations: put, get, sign, list and delete, for every kind of URL."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, from_url

from crossmodal.errors import (
    BlobDamaged,
    BlobNotFound,
    ImageTooLarge,
    InvalidParams,
    InvalidSetting,
    StorageNotWritable,
    StorageUnavailable,
    described,
)
from crossmodal.jobs.names import CHECKS, digest_of_input, input_key
from crossmodal.kinds.fields import BlobRef
from crossmodal.metrics import storage_operation
from crossmodal.settings import Settings
from crossmodal.storage.clouds import SIGNABLE, cloud_options
from crossmodal.storage.folder import Folder
from crossmodal.storage.refusals import reason, translated

SCHEMES = ("file", "memory", *SIGNABLE)
Method = Literal["GET", "HEAD", "PUT"]
PIECE = 1_024 * 1_024  # bytes of a request when a blob is streamed
LONGEST_S = 7 * 86_400  # the max life of a signed URL on S3 and Google Cloud


@dataclass(frozen=True)
class StoredBlob:
    """An entry of a store: key, size in bytes, and time of writing in seconds since the epoch."""

    key: str
    size: int
    modified_at: float


class Storage:
    """An object store. Methods raise `StorageUnavailable`, `StorageNotWritable`, `BlobNotFound`."""

    def __init__(
        self, url: str, timeout_s: float = 15.0, ca_file: Path | None = None, *, fsync: bool = True
    ) -> None:
        self.url = url
        self._scheme = _scheme(url)
        self._opened = _open(url, self._scheme, timeout_s, ca_file)
        self._folder = Folder(_folder_of(url), fsync=fsync) if self._scheme == "file" else None

    def put(self, key: str, data: bytes, media_type: str) -> BlobRef:
        """Store `data` atomically, replacing what was there."""
        return self._put_blob(key, data, media_type, hashlib.sha256(data).hexdigest())

    def _put_blob(self, key: str, data: bytes, media_type: str, digest: str) -> BlobRef:
        self._put(key, data, media_type)
        return BlobRef(key=key, media_type=media_type, size=len(data), sha256=digest)

    def _put(self, key: str, data: bytes | Path | IO[bytes], media_type: str) -> None:
        with self._operation("put", key, writing=True):
            if self._folder is not None and self._folder.has_path_for(key):
                self._folder.write(key, data)
            else:
                obstore.put(self._store, key, data, attributes=self._attributes(media_type))

    def put_input(self, data: bytes, media_type: str, owner: str = "") -> BlobRef:
        """Store an uploaded picture under its own digest."""
        digest = hashlib.sha256(data).hexdigest()
        return self._put_blob(input_key(digest, owner), data, media_type, digest)

    def put_file(self, key: str, file: Path | IO[bytes], media_type: str) -> None:
        """Store a file of any size atomically."""
        self._put(key, file, media_type)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`, or to the blob's end, in pieces.

        Each piece is a request of its own, since a store limits the time of one response and the
        reader may be slow. All pieces are of the same version of the blob.
        """
        same: dict[str, str] = {}
        with self._operation("get", key):
            while start < end:
                options: Any = {"range": (start, min(start + PIECE, end)), **same}
                found = obstore.get(self._store, key, options=options)
                if (version := found.meta["e_tag"]) is not None:
                    same = {"if_match": version}
                end = min(end, found.meta["size"])
                start = found.range[1]
                yield bytes(found.bytes())

    def get(self, blob: BlobRef, max_bytes: int | None = None) -> bytes:
        """Return the blob's bytes. Raises `BlobNotFound`, or `BlobDamaged` for a wrong digest.

        Raises `ImageTooLarge` for more than `max_bytes`, before the bytes are read.
        """
        with self._operation("get", blob.key):
            data = self._read(blob.key, max_bytes)
            # An input's key has its digest: the client of a signed PUT may have sent other bytes.
            digest = blob.sha256 or digest_of_input(blob.key)
            if digest is not None and hashlib.sha256(data).hexdigest() != digest:
                raise BlobDamaged(
                    f"the bytes at {blob.key!r} do not have the digest {digest}: "
                    "they were changed, or damaged on the way"
                )
        return data

    def _read(self, key: str, max_bytes: int | None) -> bytes:
        if self._folder is not None and self._folder.has_path_for(key):
            size, data = self._folder.read(key, max_bytes)
            _check_size(key, size, max_bytes)
            return data
        response = obstore.get(self._store, key)
        _check_size(key, response.meta["size"], max_bytes)
        return bytes(response.bytes())

    def _attributes(self, media_type: str) -> dict[str, str] | None:
        return None if self._scheme == "file" else {"Content-Type": media_type}

    def sign(self, key: str, expires_in_s: float = 3_600, method: Method = "GET") -> str | None:
        """Return a URL that allows anyone to read or put the blob; None for a folder or memory.

        It expires after `expires_in_s`, or with the store's credentials if those expire earlier.
        Raises `InvalidParams`.
        """
        if not 1 <= expires_in_s <= LONGEST_S:
            raise InvalidParams(
                f"expires_in_s is {expires_in_s:g}: a signed URL lives from 1 to {LONGEST_S} "
                "seconds (7 days)"
            )
        if self._scheme not in SIGNABLE:
            return None
        with self._operation("sign", key):
            store: Any = self._store  # its scheme is in SIGNABLE
            return str(obstore.sign(store, method, key, timedelta(seconds=expires_in_s)))

    def delete(self, key: str) -> None:
        """Delete a blob; a missing one is no error."""
        with self._operation("delete", key, writing=True):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    def list(self, prefix: str) -> Iterator[StoredBlob]:
        """Yield all blobs below a folder."""
        with self._operation("list", prefix):
            for chunk in obstore.list(self._store, prefix):
                for meta in chunk:
                    if self._folder is None or self._folder.holds(meta["path"]):
                        yield StoredBlob(
                            meta["path"], meta["size"], meta["last_modified"].timestamp()
                        )

    def head(self, key: str) -> StoredBlob | None:
        """Return the entry of a key, without its bytes; None if there is none."""
        try:
            with self._operation("head", key):
                meta = obstore.head(self._store, key)
        except BlobNotFound:
            return None
        return StoredBlob(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def check(self) -> None:
        """Write, read and delete a small blob. Raises as these operations do."""
        key = f"{CHECKS}/{secrets.token_hex(8)}"
        blob = self.put(key, b"crossmodal", "text/plain")
        self.get(blob)
        self.delete(key)

    @property
    def _store(self) -> ObjectStore:
        """The store of obstore, which uses threads. Raises `StorageUnavailable` after a fork."""
        if self._scheme != "memory":  # memory needs no threads
            _check_process(self.url)
        return self._opened

    @contextmanager
    def _operation(self, name: str, key: str, writing: bool = False) -> Iterator[None]:
        in_folder = self._scheme == "file"
        with (
            storage_operation(name),
            translated(self.url, key, writing=writing, in_folder=in_folder),
        ):
            if self._folder is not None:
                self._folder.check(key)
            yield


_began_in: int | None = None  # the process in which obstore's threads run


def _check_process(url: str) -> None:
    """Raise `StorageUnavailable` after a fork: without obstore's threads, calls would hang."""
    global _began_in
    _began_in = _began_in or os.getpid()
    if _began_in != os.getpid():
        raise StorageUnavailable(
            f"{url} was used before this process was forked, and cannot be used here: use the "
            "client only after the fork, or start processes by 'spawn'"
        )


def open_storage(settings: Settings) -> Storage:
    """Open the store of the settings. Raises `InvalidSetting` or `StorageNotWritable`."""
    return Storage(
        settings.storage_url,
        settings.storage_timeout_s,
        settings.storage_ca_file,
        fsync=settings.storage_fsync,
    )


def is_folder(url: str) -> bool:
    """Return whether a storage URL names a folder. Raises `InvalidSetting`."""
    return _scheme(url) == "file"


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as e:
        raise InvalidSetting(f"CROSSMODAL_STORAGE_URL={url}: {e}") from e


def _open(url: str, scheme: str, timeout_s: float, ca_file: Path | None) -> ObjectStore:
    if scheme not in SCHEMES:
        raise InvalidSetting(
            f"CROSSMODAL_STORAGE_URL has the scheme {scheme!r}, which is not one of "
            f"{', '.join(SCHEMES)}: write for instance file:///var/lib/crossmodal"
        )
    if scheme == "file":
        return _open_folder(_folder_of(url))
    options = {} if scheme == "memory" else cloud_options(url, timeout_s, ca_file)
    try:
        return from_url(url, **options)
    except (exceptions.BaseError, ValueError) as e:
        raise InvalidSetting(f"CROSSMODAL_STORAGE_URL={url}: {reason(e)}") from e


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidSetting(
            f"CROSSMODAL_STORAGE_URL={url}: a folder's URL has three slashes and the whole path, "
            "as file:///srv/crossmodal"
        )
    return Path(unquote(parts.path))


def _check_size(key: str, size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise ImageTooLarge(
            f"{key!r} is {size} bytes, {max_bytes} are allowed: "
            "shrink it, or raise CROSSMODAL_MAX_IMAGE_BYTES"
        )


def _open_folder(folder: Path) -> LocalStore:
    try:
        Folder(folder).make()
        return LocalStore(folder, automatic_cleanup=True)  # removes empty folders
    except OSError as e:
        raise StorageNotWritable(
            f"the folder {folder} cannot be used: {described(e)}: set CROSSMODAL_STORAGE_URL to "
            "one that this user may write to"
        ) from e
