"""Google Cloud and Azure, to the request that is sent and to what an answer is taken to mean."""

import base64
import json
from collections.abc import Iterator
from traceback import format_exception
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crossmodal.errors import BlobNotFound, StorageNotWritable, StorageUnavailable
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage import Storage
from tests.at_once import at_once
from tests.recorder import STORED, Asked, Recorder, Reply, recording

SECRET = base64.b64encode(b"an account's key").decode()
URLS = {"google": "gs://a-bucket/a/prefix", "azure": "az://a-bucket/a/prefix"}
CREATED = {**STORED, "x-goog-generation": "1"}
NAMES = {  # in the container's listing, each in the way of its cloud
    "google": """<ListBucketResult><Contents><Key>a/prefix/results/1</Key><Size>5</Size>
        <LastModified>2026-11-21T00:00:00.000Z</LastModified><ETag>"1"</ETag></Contents>
        </ListBucketResult>""",
    "azure": """<?xml version="1.0"?><EnumerationResults ContainerName="a-bucket"><Blobs><Blob>
        <Name>a/prefix/results/1</Name><Properties><Content-Length>5</Content-Length>
        <Last-Modified>Sat, 21 Nov 2026 00:00:00 GMT</Last-Modified>
        <Content-Type>image/png</Content-Type><Etag>1</Etag></Properties></Blob></Blobs>
        <NextMarker/></EnumerationResults>""",
}


@pytest.fixture(params=sorted(URLS))
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    with recording() as recorder:
        for name, value in {
            "GOOGLE_BASE_URL": recorder.url,
            "GOOGLE_BEARER_TOKEN": "a-token",
            "AZURE_STORAGE_ENDPOINT": recorder.url,
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        recorder.answer = lambda _: Reply(b"bytes", headers=CREATED)
        yield recorder


def is_signed(cloud: str, asked: Asked) -> bool:
    given = asked.headers["authorization"]
    return (
        given == "Bearer a-token" if cloud == "google" else given.startswith("SharedKey account:")
    )


def test_a_put(cloud: str, recorder: Recorder) -> None:
    recorder.answer = lambda _: Reply(status=201, headers=CREATED)
    Storage(URLS[cloud]).put("results/1", b"bytes", "image/png")
    asked = recorder.only
    assert (asked.method, asked.path) == ("PUT", "/a-bucket/a/prefix/results/1")
    named = "x-ms-blob-content-type" if cloud == "azure" else "content-type"
    assert (asked.body, asked.headers[named]) == (b"bytes", "image/png")
    assert is_signed(cloud, asked)
    if cloud == "azure":
        assert asked.headers["x-ms-blob-type"] == "BlockBlob"


def test_a_get_and_a_part_of_it(cloud: str, recorder: Recorder) -> None:
    storage = Storage(URLS[cloud])
    assert storage.get(BlobRef(key="k")) == b"bytes"
    assert recorder.only.method == "GET"
    assert recorder.only.path == "/a-bucket/a/prefix/k"
    head = {**CREATED, "Content-Range": "bytes 1-2/5"}
    recorder.answer = lambda _: Reply(b"yt", 206, head)
    assert b"".join(storage.stream("k", 1, 3)) == b"yt"
    assert recorder.asked[1].headers["range"] == "bytes=1-2"


def test_a_delete(cloud: str, recorder: Recorder) -> None:
    recorder.answer = lambda _: Reply(status=202 if cloud == "azure" else 204)
    if cloud == "google":
        Storage(URLS[cloud]).delete("k")
        assert (recorder.only.method, recorder.only.path) == ("DELETE", "/a-bucket/a/prefix/k")
        return
    part = (
        b"--b\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\n"
        b"HTTP/1.1 202 Accepted\r\n\r\n\r\n--b--\r\n"
    )
    kind = {"Content-Type": "multipart/mixed; boundary=b"}
    recorder.answer = lambda _: Reply(part, 202, kind)
    Storage(URLS[cloud]).delete("k")
    assert (recorder.only.method, recorder.only.query["comp"]) == ("POST", "batch")
    assert b"DELETE /a-bucket/a/prefix/k" in recorder.only.body


def test_a_list(cloud: str, recorder: Recorder) -> None:
    recorder.answer = lambda _: Reply(NAMES[cloud].encode())
    [found] = Storage(URLS[cloud]).list("results")
    assert (found.key, found.size) == ("results/1", 5)
    asked = recorder.only
    assert (asked.method, asked.path) == ("GET", "/a-bucket")
    assert asked.query["prefix"] == "a/prefix/results/"


def test_a_blob_that_is_not_there(cloud: str, recorder: Recorder) -> None:
    recorder.answer = lambda _: Reply(b"<Error><Code>NoSuchKey</Code></Error>", 404)
    storage = Storage(URLS[cloud])
    with pytest.raises(BlobNotFound):
        storage.get(BlobRef(key="k"))
    assert storage.head("k") is None


@at_once(
    "said",
    [
        b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist.</Message>"
        b"</Error>",
        b"<Error><Code>ContainerNotFound</Code><Message>Not there</Message></Error>",
    ],
)
def test_a_bucket_that_is_not_there(cloud: str, recorder: Recorder, said: bytes) -> None:
    recorder.answer = lambda _: Reply(said, 404)
    with pytest.raises(StorageUnavailable, match=r"404 Not Found: \w+: \w+") as caught:
        Storage(URLS[cloud]).get(BlobRef(key="k"))
    assert caught.value.retryable
    assert caught.value.code == "storage_not_writable"


@at_once("status", [401, 403])
def test_refused_credentials_are_not_told(cloud: str, recorder: Recorder, status: int) -> None:
    said = b"<Error><Code>AuthenticationFailed</Code><Message>No.\nTime:1</Message></Error>"
    recorder.answer = lambda _: Reply(said, status)
    storage = Storage(URLS[cloud])
    for attempt in (lambda: storage.put("k", b"", "image/png"), lambda: list(storage.list("k"))):
        with pytest.raises(StorageNotWritable, match="AuthenticationFailed: No") as caught:
            attempt()
        told = "".join(format_exception(caught.value))
        assert "a-token" not in told
        assert SECRET not in told


def test_a_store_that_is_busy_is_asked_again(cloud: str, recorder: Recorder) -> None:
    def busy_once(_: Asked) -> Reply:
        busy = len(recorder.asked) == 1
        return Reply(b"slow down", 503) if busy else Reply(b"bytes", headers=CREATED)

    recorder.answer = busy_once
    assert Storage(URLS[cloud]).get(BlobRef(key="k")) == b"bytes"
    assert len(recorder.asked) == 2


def test_a_store_that_stays_broken_is_given_up(cloud: str, recorder: Recorder) -> None:
    recorder.answer = lambda _: Reply(b"broken", 500)
    with pytest.raises(StorageUnavailable, match="500 Internal Server Error: broken") as caught:
        Storage(URLS[cloud], timeout_s=1).get(BlobRef(key="k"))
    assert caught.value.retryable
    assert caught.value.code == "storage_unavailable"


# -- credentials and signed URLs ------------------------------------------------------------


def service_account() -> str:
    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "pictures@a-project",
            "private_key": pem,
            "private_key_id": "1",
        }
    )


def test_a_service_account_of_google_signs_for_itself(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_BEARER_TOKEN")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", service_account())
    storage = Storage(URLS["google"])
    assert storage.get(BlobRef(key="k")) == b"bytes"
    token = recorder.only.headers["authorization"].removeprefix("Bearer ").split(".")
    claims = json.loads(base64.urlsafe_b64decode(token[1] + "=="))
    assert claims["iss"] == "pictures@a-project"
    url = urlsplit(storage.sign("k", 600, "PUT") or "")
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert url.path == "/a-bucket/a/prefix/k"
    assert query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    assert query["X-Goog-Expires"] == "600"
    assert query["X-Goog-Credential"].startswith("pictures@a-project/")
    assert len(query["X-Goog-Signature"]) == 512
    assert len(recorder.asked) == 1  # it was signed here


def test_a_signed_url_of_azure(recorder: Recorder) -> None:
    url = urlsplit(Storage(URLS["azure"]).sign("k", 600, "PUT") or "")
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert url.path.endswith("/a-bucket/a/prefix/k")
    assert (query["sr"], query["sp"]) == ("b", "w")
    assert query["se"] > query["st"]
    assert query["sig"]
    assert recorder.asked == []


def test_a_shared_access_signature_of_azure_is_not_told(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2023-11-03&sp=rw&sig=a-signature")
    recorder.answer = lambda _: Reply(b"broken", 500)
    with pytest.raises(StorageUnavailable) as caught:
        Storage(URLS["azure"], timeout_s=1).get(BlobRef(key="k"))
    assert recorder.asked[0].query["sig"] == "a-signature"
    assert "a-signature" not in "".join(format_exception(caught.value))
