"""A client of a hub, over `huggingface_hub`, which finds the hub's address and the token.

Files are fetched over HTTP in chunks, and interrupted downloads resume where they stopped.
Library errors are translated here.
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from crossmodal.errors import (
    CrossmodalError,
    InvalidModel,
    InvalidSetting,
    ModelDamaged,
    ModelHubError,
    ModelHubRefused,
    ModelHubUnavailable,
    RepositoryNotFound,
    described,
)
from worker.hub.repository import CHUNK, HubFile, Repository

PAUSES = (0.5, 1, 2, 4)  # seconds between retries of a file, reset by progress
MAX_SETTINGS = 1 << 20  # max bytes of a repository's index or config
BUSY = (408, 429)
DIGEST = re.compile(r"[0-9a-f]{40,64}")
IDENTITY = {"accept-encoding": "identity"}  # else a range would be of the encoded file

Advance = Callable[[int], None]


class Hub:
    """A repository of the hub. All methods raise `ModelHubError` and its subclasses."""

    def __init__(self, name: str) -> None:
        self.name = name

    def repository(self, revision: str | None) -> Repository:
        """Return its files at a revision, by default the newest. Also raises `InvalidModel`."""
        from huggingface_hub import HfApi, constants

        try:
            with _translated(self.name, revision):
                info = HfApi(library_name="crossmodal").model_info(
                    self.name,
                    revision=revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                )
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise ModelHubError(
                f"the server at {constants.ENDPOINT} is not a hub: check HF_ENDPOINT"
            ) from e
        if not DIGEST.fullmatch(str(info.sha)):
            raise ModelHubError(f"the hub does not report the commit of {self.name}")
        return Repository(
            self.name, str(info.sha), tuple(_file(one) for one in info.siblings or ())
        )

    def settings(self, commit: str, file: HubFile) -> dict[str, Any]:
        """Return the object in a JSON file. Raises `InvalidModel` if there is none."""
        into = io.BytesIO()
        try:
            if file.size > MAX_SETTINGS:
                raise ValueError(f"{file.size} bytes")
            self.fetch(commit, file, into)
            found = json.loads(into.getvalue())
        except (ValueError, RecursionError) as e:
            raise InvalidModel(f"{file.name} of {self.name} is not JSON: {described(e)}") from e
        if not isinstance(found, dict):
            raise InvalidModel(f"{file.name} of {self.name} is not a JSON object")
        return found

    def fetch(
        self, commit: str, file: HubFile, into: IO[bytes], advance: Advance = lambda n: None
    ) -> None:
        """Append the missing rest of a file. Raises `ModelDamaged` if it gets too long."""
        pauses = iter(PAUSES)
        while (had := into.tell()) < file.size:
            try:
                with _translated(self.name, commit):
                    self._stream(commit, file, into, advance)
            except ModelHubUnavailable:
                pauses = iter(PAUSES) if into.tell() > had else pauses
                if (pause := next(pauses, None)) is None:
                    raise
                time.sleep(pause)
        if into.tell() > file.size:
            raise ModelDamaged(
                f"{file.name} of {self.name} is longer than the hub reports: try again"
            )

    def _stream(self, commit: str, file: HubFile, into: IO[bytes], advance: Advance) -> None:
        from huggingface_hub import constants, get_session, hf_hub_url, utils

        theirs: Any = utils
        begun = into.tell()
        headers = theirs.build_hf_headers(library_name="crossmodal") | IDENTITY
        if begun:
            headers["range"] = f"bytes={begun}-"
        url = hf_hub_url(self.name, file.name, revision=commit)
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            theirs.hf_raise_for_status(response)
            if begun and response.status_code != 206:  # the hub sends the whole file again
                advance(-begun)
                into.seek(0)
                into.truncate()
            for chunk in response.iter_bytes(CHUNK):
                into.write(chunk)
                advance(len(chunk))
                if into.tell() > file.size:
                    return
        if into.tell() < file.size:
            raise ModelHubUnavailable(
                f"the download of {file.name} of {self.name} was interrupted: try again later; "
                "what was fetched is kept"
            )


def _file(sibling: Any) -> HubFile:
    """Return a file with its size and digest. Raises `ModelHubError` if one is missing."""
    name, lfs = sibling.rfilename, sibling.lfs
    size, digest = (lfs.size, lfs.sha256) if lfs else (sibling.size, sibling.blob_id)
    if not isinstance(size, int) or not DIGEST.fullmatch(str(digest)):
        raise ModelHubError(f"the hub does not report the size or the digest of {name}")
    return HubFile(name, size, sha256=digest) if lfs else HubFile(name, size, git_id=digest)


@contextmanager
def _translated(name: str, revision: str | None) -> Iterator[None]:
    """Translate errors of `huggingface_hub` and HTTP into errors with a code."""
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except CrossmodalError:
        raise
    except errors.HfHubHTTPError as e:
        raise _refusal(e, name, revision) from e
    except errors.OfflineModeIsEnabled as e:
        raise InvalidSetting("HF_HUB_OFFLINE is set, but this needs the hub: unset it") from e
    except errors.HFValidationError as e:
        raise InvalidSetting(f"{name!r} is not the name of a repository: give OWNER/NAME") from e
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as e:
        raise InvalidSetting(
            f"HF_ENDPOINT={constants.ENDPOINT} is not the URL of a hub: correct or unset it"
        ) from e
    except httpx2.HTTPError as e:
        raise ModelHubUnavailable(
            f"the hub at {constants.ENDPOINT} does not answer: {_cause(e)}. Try again later, or "
            "set HF_ENDPOINT to another; what was fetched is kept"
        ) from e


def _refusal(error: Any, name: str, revision: str | None) -> ModelHubError:
    """Return the error that an unsuccessful response of a hub means."""
    from huggingface_hub import errors, get_token

    status = error.response.status_code
    token = "another HF_TOKEN" if get_token() else "HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return ModelHubRefused(
            f"{name} is gated: accept its terms at the hub, and set {token} to a token of the "
            "account that accepted them"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RepositoryNotFound(f"{name} has no revision {revision!r}")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return RepositoryNotFound(
            f"the hub has no {name}, or hides it: check the name, or set {token} if it is private"
        )
    if status in (401, 403):
        return ModelHubRefused(f"the hub refuses {name} (status {status}): set {token}")
    if status in BUSY or status >= 500:
        return ModelHubUnavailable(f"the hub is overloaded (status {status}): try again later")
    return ModelHubError(f"the hub replied with status {status} to a request for {name}")


def _cause(error: BaseException) -> str:
    """Return the system's message if it is the cause of an error, else the error's own."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    return described(cause or error)
