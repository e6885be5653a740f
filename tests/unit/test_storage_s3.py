"""S3: addresses, certificates, credentials, encryption, signed URLs, rights, lifecycle."""

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest

from crossmodal.errors import BlobNotFound, InvalidSetting, StorageNotWritable, StorageUnavailable
from crossmodal.kinds.fields import BlobRef
from crossmodal.storage import Storage
from tests.at_once import at_once
from tests.certificates import Authority
from tests.recorder import Asked, Recorder, Reply, recording, stored
from tests.seaweed import APP, BUCKET, DOMAIN, READER, Identity, Seaweed
from tests.waiting import until

TEMPORARY = {
    "AccessKeyId": "temporary",
    "SecretAccessKey": "a-secret",
    "Token": "a-session-token",
    "Expiration": "2099-01-01T00:00:00Z",
    "Code": "Success",
}
STS = """<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>temporary</AccessKeyId><SecretAccessKey>a-secret</SecretAccessKey>
<SessionToken>a-session-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment that the tests run in."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")


def as_identity(monkeypatch: pytest.MonkeyPatch, who: Identity, endpoint: str) -> None:
    for name, value in who.environment(endpoint).items():
        monkeypatch.setenv(name, value)


def put(url: str = "s3://a-bucket/a/prefix", timeout_s: float = 5.0, **options: Any) -> None:
    Storage(url, timeout_s, **options).put("k", b"x", "image/png")


# -- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_bucket_is_in_the_path(
    recorder: Recorder, keys: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, recorder.url)
    put()
    asked = recorder.only
    assert (asked.method, asked.path) == ("PUT", "/a-bucket/a/prefix/k")
    assert asked.headers["host"] == urlsplit(recorder.url).netloc
    assert asked.headers["content-type"] == "image/png"
    assert "Credential=an-id/" in asked.headers["authorization"]
    assert "/us-east-1/s3/aws4_request" in asked.headers["authorization"]


def test_the_endpoint_of_s3_alone_goes_before_that_of_all_services(
    recorder: Recorder, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", recorder.url)
    put()
    assert recorder.only.path == "/a-bucket/a/prefix/k"


@pytest.mark.parametrize("endpoint", [f"http://{DOMAIN}", f"http://{BUCKET}.{DOMAIN}"])
def test_the_bucket_is_in_the_host_for_who_wants_that(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """As its own proxy, the server is asked for a host that no name server knows."""
    as_identity(monkeypatch, APP, endpoint)
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    monkeypatch.setenv("http_proxy", seaweed.endpoint)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    key = uuid.uuid4().hex
    blob = Storage(f"s3://{BUCKET}/hosted").put(key, b"bytes", "image/png")
    stored = seaweed.operator().get_object(Bucket=BUCKET, Key=f"hosted/{blob.key}")
    assert stored["Body"].read() == b"bytes"
    assert f"{BUCKET}.{DOMAIN}" in (Storage(f"s3://{BUCKET}/hosted").sign(key) or "")


# -- TLS ------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def private(
    authority: Authority, keys: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorder]:
    """A store whose certificate only `authority` vouches for."""
    with recording(authority.server_context()) as recorder:
        monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url)
        yield recorder


def test_a_private_authority_is_trusted_by_name(private: Recorder, authority: Authority) -> None:
    put(ca_file=authority.file)
    assert private.only.path == "/a-bucket/a/prefix/k"


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority_is_trusted_as_everywhere(
    private: Recorder, authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(authority.file))
    put()
    assert private.only.path == "/a-bucket/a/prefix/k"


def test_a_store_of_an_unknown_authority_gets_nothing(private: Recorder) -> None:
    with pytest.raises(StorageUnavailable, match=r"UnknownIssuer.*CROSSMODAL_STORAGE_CA_FILE"):
        put(timeout_s=1)
    assert private.asked == []


def test_a_certificate_for_another_host_is_refused(
    private: Recorder, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", private.url.replace("127.0.0.1", "127.0.0.2"))
    with pytest.raises(StorageUnavailable):
        put(timeout_s=0.3, ca_file=authority.file)
    assert private.asked == []


@at_once("content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\njunk"])
def test_a_file_that_holds_no_authority_is_said_so(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidSetting):
        put(ca_file=path)


def test_nothing_is_sent_without_tls_that_was_not_asked_for_so(
    private: Recorder, authority: Authority, recorder: Recorder
) -> None:
    def elsewhere(_: Asked) -> Reply:
        return Reply(status=307, headers={"Location": f"{recorder.url}/a-bucket/k"})

    private.answer = elsewhere
    with pytest.raises(StorageUnavailable, match="307"):
        put(ca_file=authority.file)
    assert recorder.asked == []


# -- credentials ----------------------------------------------------------------------------


def credentials_of(asked: Asked) -> tuple[str, str | None]:
    name = asked.headers["authorization"].partition("Credential=")[2].partition("/")[0]
    return name, asked.headers.get("x-amz-security-token")


def test_a_containers_credentials(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-this-pod")
    monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{recorder.url}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    recorder.answer = lambda asked: (
        Reply(json.dumps(TEMPORARY).encode()) if asked.path == "/credentials" else stored(asked)
    )
    put()
    first, second = recorder.asked
    assert (first.path, first.headers["authorization"]) == ("/credentials", "of-this-pod")
    assert credentials_of(second) == ("temporary", "a-session-token")


@pytest.fixture
def web_identity(private: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """The store and, at the same place, the service that gives roles out; only over TLS."""
    (tmp_path / "token").write_text("a.jwt.token")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{private.url}/sts")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/crossmodal")
    return private


def test_a_web_identity_becomes_a_role(web_identity: Recorder, authority: Authority) -> None:
    web_identity.answer = lambda asked: (
        Reply(STS.encode()) if asked.path.startswith("/sts") else stored(asked)
    )
    put(ca_file=authority.file)
    first, second = web_identity.asked
    sent = first.query
    assert sent["Action"] == "AssumeRoleWithWebIdentity"
    assert sent["RoleArn"] == "arn:aws:iam::1:role/crossmodal"
    assert sent["WebIdentityToken"] == "a.jwt.token"
    assert credentials_of(second) == ("temporary", "a-session-token")


def test_the_token_of_a_refused_web_identity_is_not_told(
    web_identity: Recorder, authority: Authority
) -> None:
    said = b"<Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error>"
    web_identity.answer = lambda _: Reply(said, status=403)
    with pytest.raises(StorageNotWritable, match="AccessDenied: Not authorized") as caught:
        put(ca_file=authority.file)
    assert "a.jwt.token" not in "".join(format_exception(caught.value))


def test_a_machines_role(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def metadata(asked: Asked) -> Reply:
        if asked.path == "/latest/api/token":
            return Reply(b"metadata-token")
        if asked.path.endswith("/security-credentials/"):
            return Reply(b"a-role")
        if asked.path.endswith("/a-role"):
            return Reply(json.dumps(TEMPORARY).encode())
        return stored(asked)

    monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", recorder.url)
    recorder.answer = metadata
    put()
    assert recorder.asked[1].headers["x-aws-ec2-metadata-token"] == "metadata-token"
    assert credentials_of(recorder.asked[-1]) == ("temporary", "a-session-token")


def test_a_profile(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[pictures]\naws_access_key_id = of-the-profile\naws_secret_access_key = a-secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "pictures")
    monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url)
    put()
    assert credentials_of(recorder.only) == ("of-the-profile", None)
    monkeypatch.setenv("AWS_PROFILE", "another")
    with pytest.raises(InvalidSetting, match="AWS_PROFILE=another"):
        put()


def test_a_profile_without_boto3_says_what_to_install(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "pictures")
    monkeypatch.setitem(sys.modules, "boto3", None)
    Storage("s3://a-bucket")  # keys go before a profile
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(InvalidSetting, match=r"pip install 'crossmodal-jobs\[aws\]'"):
        Storage("s3://a-bucket")


# -- encryption -----------------------------------------------------------------------------


def test_blobs_are_stored_encrypted_for_who_asks_that(
    s3_server: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "arn:aws:kms:us-east-1:1:key/2")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    put(f"s3://{bucket}")
    head = client.head_object(Bucket=bucket, Key="k")
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"] == "arn:aws:kms:us-east-1:1:key/2"


# -- signed URLs ----------------------------------------------------------------------------


def is_refused(url: str) -> bool:
    try:
        urlopen(url, timeout=60).close()
    except HTTPError as e:
        return e.code == 403
    return False


def test_a_signed_url_gives_and_takes_bytes_until_it_expires(seaweed_url: str) -> None:
    storage = Storage(seaweed_url)
    where = storage.sign("k", 60, "PUT")
    assert where is not None
    urlopen(Request(where, data=b"bytes", method="PUT"), timeout=60).close()
    soon = storage.sign("k", 1)
    assert soon is not None
    with urlopen(storage.sign("k", 60) or "", timeout=60) as reply:
        assert reply.read() == b"bytes"
    head = Request(storage.sign("k", 60, "HEAD") or "", method="HEAD")
    with urlopen(head, timeout=60) as reply:
        assert reply.headers["Content-Length"] == "5"
    assert "X-Amz-Expires=1&" in f"{soon}&"
    until(lambda: is_refused(soon), 60)


def test_a_signed_url_is_for_its_blob_and_its_method_alone(seaweed_url: str) -> None:
    storage = Storage(seaweed_url)
    storage.put("k", b"x", "text/plain")
    storage.put("l", b"x", "text/plain")
    url = storage.sign("k") or ""
    for request in (Request(url, data=b"y", method="PUT"), Request(url.replace("/k?", "/l?"))):
        with pytest.raises(HTTPError, match="403"):
            urlopen(request, timeout=60)


# -- rights ---------------------------------------------------------------------------------


def test_wrong_keys_are_refused_without_telling_them(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_identity(monkeypatch, Identity(APP.key, "not-its-secret", ()), seaweed.endpoint)
    storage = Storage(f"s3://{BUCKET}/rights")
    with pytest.raises(StorageNotWritable, match="SignatureDoesNotMatch") as caught:
        storage.put("k", b"x", "text/plain")
    assert "not-its-secret" not in "".join(format_exception(caught.value))
    with pytest.raises(StorageNotWritable, match="refuses access"):
        list(storage.list("results"))
    with pytest.raises(StorageNotWritable, match="refuses access"):
        storage.get(BlobRef(key="k"))


def test_who_may_read_may_do_nothing_else(
    seaweed: Seaweed, seaweed_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Storage(seaweed_url).put("k", b"x", "text/plain")
    as_identity(monkeypatch, READER, seaweed.endpoint)
    storage = Storage(seaweed_url)
    assert storage.get(blob) == b"x"
    for attempt in (
        lambda: storage.put("k", b"y", "text/plain"),
        lambda: storage.delete("k"),
        lambda: list(storage.list("")),
    ):
        with pytest.raises(StorageNotWritable, match="AccessDenied"):
            attempt()
    assert storage.get(blob) == b"x"


def test_a_bucket_that_is_not_there_is_no_missing_blob(
    s3_server: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    storage = Storage("s3://no-such-bucket/prefix")
    with pytest.raises(StorageUnavailable, match="NoSuchBucket") as caught:
        storage.get(BlobRef(key="k"))
    assert not isinstance(caught.value, BlobNotFound)
    assert caught.value.retryable
    with pytest.raises(StorageNotWritable, match="NoSuchBucket"):
        storage.put("k", b"x", "text/plain")
