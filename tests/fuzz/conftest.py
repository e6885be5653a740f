"""A gateway that requires keys, two of them, and a count of the cases of each surface."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from producer import Client
from tests.background import background
from tests.conftest import settings_of, stack_environment
from tests.fuzz.surfaces import count
from tests.fuzz.tenants import Tenant, make_tenants, write
from tests.gateway import Gateway, running_gateway
from tests.servers import start_server
from tests.workers import running_worker


@dataclass(frozen=True)
class Fuzzed:
    """The gateway, the keys that call it, and the file of the counts."""

    gateway: Gateway
    stack_env: dict[str, str]
    tenants: list[Tenant]
    folder: Path
    # Cases generated per operation, beside those of other phases; `make fuzz` has more.
    each: int = int(os.environ.get("FUZZ_EXAMPLES", "5"))

    @property
    def counts(self) -> Path:
        return self.folder / "counts.json"

    @property
    def env(self) -> dict[str, str]:
        """The environment of the schemathesis hooks."""
        file = self.folder / "tenants.json"
        write(self.tenants, file)
        return {"FUZZ_TENANTS": str(file), "FUZZ_COUNTS": str(self.counts)}

    def note(self, surface: str, cases: int) -> None:
        count(Counter({surface: cases}), self.counts)

    def report(self) -> None:
        """Print the number of cases per surface."""
        if self.counts.exists():
            counts: dict[str, int] = json.loads(self.counts.read_text())
            told = ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))
            print(f"\n{sum(counts.values()):,} cases: {told}")


@pytest.fixture(scope="session")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    with ExitStack() as stack:
        server = start_server(folder / "valkey")
        stack.callback(server.stop)
        env = stack_environment(server.port, folder)
        client = stack.enter_context(Client(settings_of(env)))
        client.keys.create("the first")
        stack.enter_context(running_worker(env, folder / "worker", 8))
        stack.enter_context(background(env, folder / "background"))
        gateway = stack.enter_context(running_gateway(env, folder, "--keys"))
        one = Fuzzed(gateway, env, make_tenants(gateway, client), folder)
        yield one
        one.report()


@pytest.fixture
def gateway(fuzzed: Fuzzed) -> Gateway:
    return fuzzed.gateway
