"""The stack under a storm, all real processes.

Valkey, an S3 store, two workers, a gateway, a background process.
"""

import os
import random
import signal
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
from pydantic import SecretStr

from crossmodal.jobs.workers import worker_name
from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, python_module, wait_until
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.chaos.clock import Clocks
from tests.chaos.disk import Disk
from tests.chaos.proxy import Proxy
from tests.chaos.redises import Redises
from tests.marked import marked
from tests.sentinels import MASTER, SENTINEL_PASSWORD
from tests.workers import FAKE_WORKER, REAL_WORKER, celery_workers, hosts_of

POISON = Path(__file__).parents[1] / "e2e" / "poison"
MARK = "CROSSMODAL_STORM"  # in the environment of every process that the storm starts
START_S = 90.0
BUCKET = "storm"
TMP_MB = 64
OWNERS = ("one", "other")  # of the two API keys
FAST = {"per_second": 1_000, "burst": 10_000}
MEMORY = ("1000", "1300")  # of the workers' devices: room for one and for two of the fake models


@dataclass
class Worker:
    """A supervisor with its model host and Celery worker, restarted as by a process manager."""

    name: str
    folder: Path
    env: dict[str, str]
    concurrency: int
    program: Sequence[str] = REAL_WORKER
    child: Child | None = None
    starts: int = 0
    options: Sequence[str] = ()
    within: Sequence[str] = ()  # the prefix that runs the command on another host

    def start(self) -> None:
        self.starts += 1
        argv = [
            *self.within,
            sys.executable,
            *self.program,
            "--concurrency",
            str(self.concurrency),
            "--ready-file",
            str(self.ready),
            *self.options,
        ]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.child = Child(self.name, argv, self.env, output=log)
            self.child.start()

    def keep_up(self) -> None:
        if self.child is None or not self.child.is_alive:
            self.ready.unlink(missing_ok=True)
            self.start()

    @property
    def ready(self) -> Path:
        return self.folder / f"{self.name}.ready"

    @property
    def celery_name(self) -> str:
        """The name of its Celery worker in the records of the jobs it runs."""
        return worker_name("cpu", self.child.pid or 0) if self.child else ""

    def supervisor(self) -> psutil.Process | None:
        try:
            return psutil.Process(self.child.pid) if self.child and self.child.is_alive else None
        except psutil.NoSuchProcess:
            return None

    def host(self) -> psutil.Process | None:
        return next(iter(self.hosts()), None)

    def hosts(self) -> list[psutil.Process]:
        """Return the model hosts, one per model that is loaded or loads."""
        supervisor = self.supervisor()
        return hosts_of(supervisor) if supervisor else []

    def loading_hosts(self) -> list[psutil.Process]:
        """Return the model hosts that do not listen yet."""
        return [host for host in self.hosts() if _is_loading(host)]

    def celery(self) -> psutil.Process | None:
        """Return the Celery worker's process."""
        supervisor = self.supervisor()
        return next(iter(celery_workers(supervisor)), None) if supervisor else None

    def decoders(self) -> list[psutil.Process]:
        """Return the processes that decode pictures; there may be none."""
        return celery.children() if (celery := self.celery()) else []


def _is_loading(host: psutil.Process) -> bool:
    try:
        line = host.cmdline()
        return not Path(line[line.index("--socket") + 1]).is_socket()
    except (psutil.NoSuchProcess, ValueError):  # it has just ended
        return False


@dataclass
class Service:
    """A process without devices, restarted as by a process manager."""

    name: str
    folder: Path
    argv: Sequence[str]
    env: dict[str, str]
    child: Child | None = None

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.child = Child(self.name, list(self.argv), self.env, output=log)
            self.child.start()

    def keep_up(self) -> None:
        if self.child is None or not self.child.is_alive:
            self.start()

    def process(self) -> psutil.Process | None:
        try:
            return psutil.Process(self.child.pid) if self.child and self.child.is_alive else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class World:
    """The whole stack: starts everything, and restarts what was broken."""

    folder: Path
    concurrency: int = 4
    longest_pause_s: float = 12.0  # of Redis
    more_env: dict[str, str] = field(default_factory=dict)
    program: Sequence[str] = REAL_WORKER
    models: Sequence[str] = ()  # fake ones; if empty, those that ship
    with_sentinel: bool = False
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self._environ = os.environ.copy()
        os.environ[MARK] = self.mark
        self.clocks = Clocks(self.folder)
        self.disk = Disk(self.folder / "disk", TMP_MB)
        self.temporary.mkdir()
        self.redis = Redises(self.folder / "redis", self.clocks, with_sentinel=self.with_sentinel)
        self.store_port = free_port()
        self.store = self._start_store()
        self.store_proxy = Proxy(self.store_port)
        self.env = self._environment()
        os.environ.update({k: v for k, v in self.env.items() if k.startswith("AWS_")})
        self.workers = [self._worker(i, memory) for i, memory in enumerate(MEMORY)]
        self.tokens = self._make_keys()
        port = free_port()
        self.gateway_url = f"http://127.0.0.1:{port}"
        self.gateway = self._service("gateway", "--port", str(port), "--keys")
        self.background = self._service("background")
        for part in self.parts:
            part.start()
        assert wait_until(lambda: all(w.ready.exists() for w in self.workers), START_S)

    def _worker(self, number: int, memory: str) -> Worker:
        name = f"worker-{number}"
        env, options, program = self.env | self.clocks.environment(name), list[str](), self.program
        if self.models:
            env = env | {"CROSSMODAL_DEVICE_MEMORY": memory}
            options, program = ["--models", ",".join(self.models)], FAKE_WORKER
        return Worker(name, self.folder, env, self.concurrency, program, options=options)

    def _service(self, command: str, *options: str) -> Service:
        argv = python_module("crossmodal.cli", command, *options)
        return Service(command, self.folder, argv, self.env)

    def settings(self, through_proxy: bool = True) -> Settings:
        """Return settings for a producer, or, past the proxies, for an observer with all rights."""
        url = self.redis.url if through_proxy else self.redis.server.admin_url
        return load_settings(
            broker_url=url,
            sentinel_master=MASTER,
            sentinel_password=SecretStr(SENTINEL_PASSWORD),
            storage_url=f"s3://{BUCKET}/",
            result_backend="",
            max_attempts=int(self.env.get("CROSSMODAL_MAX_ATTEMPTS", "3")),
        )

    @property
    def temporary(self) -> Path:
        """The folder of temporary files of all its processes."""
        return self.disk.folder / "tmp"

    @property
    def run_dir(self) -> Path:
        return self.disk.folder / "run"

    def restart_valkey(self, number: signal.Signals) -> None:
        self.redis.restart(number)

    @property
    def valkey(self) -> Child:
        return self.redis.server.child

    @property
    def redis_proxy(self) -> Proxy:
        return self.redis.master.proxy

    @property
    def parts(self) -> list[Worker | Service]:
        """What is restarted when it ends; the gateway stops before the services that it calls."""
        return [self.gateway, *self.workers, self.background]

    def keep_up(self) -> None:
        for part in self.parts:
            part.keep_up()

    def stop(self) -> None:
        for part in self.parts:
            if part.child is not None:
                part.child.stop(90)

    def a_model(self, rng: random.Random) -> str | None:
        """Return one of the models, or None."""
        return rng.choice([None, *self.models])

    def loads(self) -> int:
        """Return how often models were loaded, for jobs or because a process was lost."""
        return self._logged(" is loaded")

    def switches(self) -> int:
        """Return how often workers have given models up for others."""
        return self._logged(" in place of ")

    def _logged(self, words: str) -> int:
        return sum((self.folder / f"{w.name}.log").read_text().count(words) for w in self.workers)

    def close(self) -> None:
        for part in self.parts:
            if part.child is not None:
                part.child.kill()
        self.store_proxy.close()
        self.store.kill()
        self.redis.close()
        self.disk.close()
        os.environ.clear()  # other tests must not see the mark and the store's keys
        os.environ.update(self._environ)

    def survivors(self) -> list[psutil.Process]:
        """Return its processes that are still there, by the mark in their environment."""
        return marked(MARK, self.mark, "CROSSMODAL_LEASE_S")

    def _environment(self) -> dict[str, str]:
        return {
            **self.redis.environment,
            **self.clocks.environment(),
            "CELERY_RESULT_BACKEND": "",
            "CROSSMODAL_STORAGE_URL": f"s3://{BUCKET}/",
            "CROSSMODAL_RUN_DIR": str(self.run_dir),
            "TMPDIR": str(self.temporary),
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.store_proxy.port}",
            "AWS_ACCESS_KEY_ID": "storm",
            "AWS_SECRET_ACCESS_KEY": "storm",
            "AWS_REGION": "us-east-1",
            "CROSSMODAL_ALLOW_PRIVATE_URLS": "true",  # for the webhook receiver
            "PYTHONPATH": os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")]),
            **self.more_env,
        }

    def _make_keys(self) -> list[str]:
        """Make two API keys: a gateway requires keys only once one was made."""
        with Client(self.settings(through_proxy=False)) as client:
            return [client.keys.create(name, **FAST)[1] for name in OWNERS]

    def _start_store(self) -> Child:
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.store_port)]
        with (self.folder / "store.log").open("wb") as log:
            store = Child("store", argv, {}, output=log)
            store.start()
        url = f"http://127.0.0.1:{self.store_port}/{BUCKET}"

        def has_bucket() -> bool:
            try:
                urlopen(Request(url, method="PUT"), timeout=5).close()
            except OSError:
                return False
            return True

        assert wait_until(has_bucket, START_S)
        return store

    def is_healthy(self) -> bool:
        """Return whether all that was broken is repaired."""
        return self.redis.answers() and all(w.ready.exists() for w in self.workers)
