"""Two API keys with data of their own, and a check whether one sees the other's."""

import json
import os
import random
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from producer import Client
from tests.gateway import Gateway
from tests.waiting import until

JSONL = {"Content-Type": "application/jsonl"}
CHANGES = 25  # calls of a key before the other's turn, so that calls may build on each other
FAST = {"per_second": 10_000, "burst": 10_000}


@dataclass
class Tenant:
    """An API key; names of its data by route parameter, and marks that only it may see."""

    token: str
    names: dict[str, list[str]]
    marks: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def own(self, name: str, value: str) -> None:
        """Note something that it has created."""
        self.names.setdefault(name, []).append(value)
        self.marks.append(value)


def make_tenants(gateway: Gateway, client: Client) -> list[Tenant]:
    """Make two tenants, each with a job, a picture, an upload, a batch and a file, all marked."""
    return [_make(gateway, client, name) for name in ("one", "other")]


def _make(gateway: Gateway, client: Client, name: str) -> Tenant:
    key, token = client.keys.create(name, **FAST)
    mark = f"mark-{uuid.uuid4().hex}"
    tenant = Tenant(token, {}, [mark, token, key.id])
    with gateway.as_key(token) as http:
        body = {"task": "txt2img", "prompt": f"a red circle {mark}", "metadata": {"m": mark}}
        wait = {"Prefer": "wait=60", "Idempotency-Key": mark}
        job = http.post("/v1/jobs", json=body, headers=wait).raise_for_status().json()
        tenant.own("job_id", job["id"])
        tenant.own("key", job["result"]["images"][0]["key"])
        picture = http.get(job["result"]["images"][0]["url"]).raise_for_status().content
        kind = {"Content-Type": "image/png"}
        upload = http.post("/v1/uploads", content=picture, headers=kind).raise_for_status()
        tenant.own("key", upload.json()["key"])
        line = json.dumps({"custom_id": mark, "url": "/v1/txt2img", "body": {"prompt": mark}})
        batch = http.post("/v1/batches", content=line, headers=JSONL).raise_for_status().json()
        tenant.own("batch_id", batch["id"])
        until(lambda: http.get(batch["status_url"]).json()["status"] == "completed", 60)
        lines = {"file": (f"{mark}.jsonl", line), "purpose": (None, "batch")}
        tenant.own("file_id", http.post("/v1/files", files=lines).raise_for_status().json()["id"])
    tenant.names["letter_id"] = tenant.names["job_id"][:1]
    return tenant


@dataclass
class Asked:
    """A request and its answer, as far as they matter for leaks."""

    sent: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def leaks(asked: Asked, other: Tenant) -> list[str]:
    """Return another's marks in an answer, except those that the caller sent and was refused."""
    told = asked.body + "\n".join(asked.headers.values()).encode(errors="replace")
    found = [mark for mark in other.marks if mark.encode() in told]
    return [mark for mark in found if asked.status < 400 or mark not in asked.sent]


def take_note(asked: Asked, tenant: Tenant) -> None:
    """Note what a caller has created as its own."""
    try:
        made: Any = json.loads(asked.body) if asked.status in (200, 201, 202) else None
    except ValueError:
        return
    for name in ("id", "key"):
        if isinstance(made, dict) and isinstance(made.get(name), str) and len(made[name]) > 20:
            tenant.own("key" if name == "key" else _name_of(made[name]), made[name])


def _name_of(made: str) -> str:
    """Return the route parameter that takes such an id."""
    return "file_id" if made.startswith("file") else "job_id"


class Turns:
    """Whose turn it is, and the names in each call: its own, the other's, or made-up ones."""

    def __init__(self, tenants: list[Tenant], seed: int = 0) -> None:
        self.tenants = tenants
        self._rng = random.Random(seed)
        self._number = 0

    def next(self) -> Tenant:
        self._number += 1
        return self.tenants[self._number // CHANGES % 2]

    def other(self, tenant: Tenant) -> Tenant:
        return self.tenants[1 - self.tenants.index(tenant)]

    def name(self, parameter: str, tenant: Tenant) -> str | None:
        """Return a name for a parameter; None to leave it as it is."""
        whose = self._rng.choice([tenant, self.other(tenant), self.other(tenant), None])
        names = whose.names.get(parameter) if whose else None
        return self._rng.choice(names[:5] + names[-5:]) if names else None


def write(tenants: Iterable[Tenant], file: Path) -> None:
    """Write the tenants for the hooks, which are in another process."""
    file.write_text(json.dumps([asdict(tenant) for tenant in tenants]))


def read() -> list[Tenant]:
    return [Tenant(**one) for one in json.loads(Path(os.environ["FUZZ_TENANTS"]).read_text())]
