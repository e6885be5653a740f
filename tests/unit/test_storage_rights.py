"""The policies and the lifecycle rules of docs/examples/storage, applied to a server."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from crossmodal.errors import StorageNotWritable
from crossmodal.kinds.fields import BlobRef
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child
from crossmodal.storage import Storage
from tests.waiting import until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "storage"
BUCKET, URL = "a-bucket", "s3://a-bucket/crossmodal"
ROLES = ("gateway", "worker", "gc")
UNCHECKED = 2 + 3 * len(ROLES)  # calls before the server begins to check rights


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """A server that checks rights, and the environment of each role there."""
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    env = {"INITIAL_NO_AUTH_ACTION_COUNT": str(UNCHECKED)}
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        server = Child("moto", argv, env, output=log)
        server.start()
    try:
        yield _roles(f"http://127.0.0.1:{port}")
    finally:
        server.kill()


def _client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="root",
        aws_secret_access_key="root",
    )


def _roles(endpoint: str) -> dict[str, dict[str, str]]:
    s3, iam = _client("s3", endpoint), _client("iam", endpoint)

    def made() -> bool:
        try:
            s3.create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    until(made, 60)
    body = b"of somebody else"
    s3.put_object(Bucket=BUCKET, Key="crossmodal/inputs/theirs", Body=body)
    environments = {}
    for role in ROLES:
        iam.create_user(UserName=role)
        policy = (EXAMPLES / f"{role}.json").read_text()
        iam.put_user_policy(UserName=role, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=role)["AccessKey"]
        environments[role] = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    return environments


@pytest.fixture
def storage_of(
    guarded: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Storage]:
    def storage(role: str) -> Storage:
        for name in [n for n in os.environ if n.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in guarded[role].items():
            monkeypatch.setenv(name, value)
        return Storage(URL, 5.0)

    return storage


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except StorageNotWritable:
        return True
    return False


def test_each_role_may_do_its_work(storage_of: Callable[[str], Storage]) -> None:
    picture = storage_of("gateway").put_input(b"picture", "image/png")
    worker = storage_of("worker")
    assert worker.get(picture) == b"picture"
    worker.put("results/j/1.0.png", b"image", "image/png")
    worker.put("results/j/captions.json", b"2", "application/json")
    assert worker.head("results/none") is None
    assert len(list(worker.list("results/j"))) == 2
    gateway = storage_of("gateway")
    assert gateway.get(BlobRef(key="results/j/captions.json")) == b"2"
    gateway.delete("results/j/1.0.png")
    for number in range(2):
        worker.put("previews/j/1.jpeg", b"%d" % number, "image/jpeg")
    assert gateway.get(BlobRef(key="previews/j/1.jpeg")) == b"1"
    worker.delete("previews/j/1.jpeg")
    worker.put("previews/j/2.jpeg", b"left", "image/jpeg")
    collector = storage_of("gc")
    for blob in [
        *collector.list("results"),
        *collector.list("inputs"),
        *collector.list("previews"),
    ]:
        collector.get(BlobRef(key=blob.key))
        collector.delete(blob.key)
    assert list(collector.list("")) == []


def test_no_role_may_do_more(storage_of: Callable[[str], Storage]) -> None:
    storage_of("gateway").put("inputs/k", b"x", "image/png")
    gateway = storage_of("gateway")
    assert refused(lambda: gateway.delete("inputs/k"))
    assert refused(lambda: gateway.put("previews/j/1.jpeg", b"x", "image/jpeg"))
    assert refused(lambda: gateway.put("elsewhere/k", b"x", "text/plain"))
    worker = storage_of("worker")
    assert refused(lambda: worker.put("inputs/k", b"changed", "image/png"))
    assert refused(lambda: worker.delete("inputs/k"))
    worker.put("results/j/0.png", b"x", "image/png")
    assert refused(lambda: worker.delete("results/j/0.png"))
    assert refused(lambda: worker.get(BlobRef(key="elsewhere/k")))
    collector = storage_of("gc")
    assert refused(lambda: collector.put("results/k", b"x", "text/plain"))
    assert refused(lambda: Storage("s3://another-bucket/crossmodal").put("k", b"", "text/plain"))


@pytest.mark.parametrize("role", ROLES)
def test_doctor_passes_with_each_role(storage_of: Callable[[str], Storage], role: str) -> None:
    storage_of(role).check()


def test_the_lifecycle_rules_are_taken(s3_url: str) -> None:
    client = _client("s3", os.environ["AWS_ENDPOINT"])
    bucket = s3_url.split("/")[2]
    rules = json.loads((EXAMPLES / "lifecycle.json").read_text())
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    taken = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    days = {rule["ID"]: rule["Expiration"]["Days"] for rule in taken if "Expiration" in rule}
    assert days == {"old-results": 14, "old-inputs": 14, "old-previews": 1, "old-checks": 1}
    assert {rule["Status"] for rule in taken} == {"Enabled"}
