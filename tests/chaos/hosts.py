"""Four hosts and a cut cable: nothing is lost, and the host that was cut off comes back.

    make hosts JOBS=1000

Host 1 has Valkey and an S3 store, hosts 2 and 3 a worker each, host 4 the producer. In the middle
the cable of host 3 is pulled for longer than a lease, and put in again. Then an audit, as after a
storm. The hosts are network namespaces: root is needed, and nothing leaves them. Exits with
status 1 if a promise was broken.
"""

import argparse
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from crossmodal.jobs.record import Job
from crossmodal.local.valkey import answers, server_binary
from crossmodal.processes import Child, treat_sigterm_as_interrupt, wait_until
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.chaos.audit import Accepted, Audit, running_jobs
from tests.chaos.network import Network
from tests.chaos.storm import SETTLE_S
from tests.chaos.submitters import PROMPTS, picture
from tests.chaos.world import BUCKET, START_S, Worker
from tests.ledgers import Ledger
from tests.seaweed import Identity, Seaweed

STORES, STEADY, CUT_OFF, PRODUCER = 1, 2, 3, 4
PORT = 6379
APP = Identity(
    "app", secrets.token_hex(16), tuple(f"{a}:{BUCKET}" for a in ("Read", "Write", "List"))
)


@dataclass
class Hosts:
    """The processes on the hosts; this process is on the producer's."""

    network: Network
    folder: Path
    lease_s: float
    concurrency: int
    stack: ExitStack
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    workers: dict[int, Worker] = field(default_factory=dict)

    def start(self) -> None:
        self.network.enter(PRODUCER)
        self._start_valkey()
        store = Seaweed(
            self.folder / "seaweed",
            (APP,),
            self.network.address(STORES),
            within=self.network.within(STORES),
        )
        self.stack.callback(store.stop)
        store.start()
        store.make_bucket(BUCKET)
        env = self._environment(store.endpoint)
        os.environ.update(env)
        self.workers = {host: self._start_worker(host, env) for host in (STEADY, CUT_OFF)}
        assert wait_until(lambda: all(w.ready.exists() for w in self.workers.values()), START_S)

    def settings(self) -> Settings:
        return load_settings()

    def _start_valkey(self) -> None:
        address, folder = self.network.address(STORES), self.folder / "valkey"
        folder.mkdir()
        config = f"""
            port {PORT}\nbind {address}\nrequirepass {self.password}\ndir "{folder}"
            appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n"""
        with (folder / "valkey.log").open("wb") as log:
            argv = [*self.network.within(STORES), server_binary(), "-"]
            child = Child("valkey", argv, output=log, stdin=config.encode())
            self.stack.callback(child.kill)
            child.start()
        assert wait_until(lambda: answers(self._broker), START_S)

    def _start_worker(self, host: int, env: dict[str, str]) -> Worker:
        own = env | {"CROSSMODAL_RUN_DIR": str(self.folder / f"run{host}")}
        within = self.network.within(host)
        worker = Worker(f"host{host}", self.folder, own, self.concurrency, within=within)
        worker.start()
        if worker.child is not None:
            self.stack.callback(worker.child.kill)
        return worker

    @property
    def _broker(self) -> str:
        return f"redis://:{self.password}@{self.network.address(STORES)}:{PORT}/0"

    def _environment(self, endpoint: str) -> dict[str, str]:
        return {
            "CELERY_BROKER_URL": self._broker,
            "CELERY_RESULT_BACKEND": "",
            "CROSSMODAL_STORAGE_URL": f"s3://{BUCKET}/pictures",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": APP.key,
            "AWS_SECRET_ACCESS_KEY": APP.secret,
            "AWS_REGION": "us-east-1",
            "CROSSMODAL_LEASE_S": f"{self.lease_s:g}",
            "OMP_NUM_THREADS": "1",
        }


@dataclass
class Trial:
    """One run: a third of the jobs before the cut, one during it, one after it."""

    hosts: Hosts
    jobs: int
    away_s: float
    accepted: Accepted = field(default_factory=Accepted)
    held: set[str] = field(default_factory=set)  # by host 3 when its cable was pulled
    cut_at: float = 0.0  # by this machine's clock, as all times in records
    back_at: float = 0.0
    rescued_s: float | None = None
    returned_s: float | None = None

    def run(self) -> Iterator[str]:
        """Run the trial; yield the promises that were broken."""
        settings = self.hosts.settings()
        ledger = Ledger(settings)
        with Client(settings) as client:
            self._submit(client, self.jobs // 3)
            assert wait_until(lambda: self._ended(ledger) >= self.jobs // 6, SETTLE_S)
            self._submit(client, self.jobs // 3)
            self._cut(settings)
            yield from self._wait_for_rescue(ledger)
            self.hosts.network.plug(CUT_OFF, up=True)
            self.back_at = time.time()
            yield from self._wait_for_return(client, ledger)
        yield from self._settle(settings)

    def _submit(self, client: Client, count: int, pause_s: float = 0.0) -> None:
        for _ in range(count):
            i = len(self.accepted.jobs)
            job = (
                client.img2txt(picture(i % 50), idempotency_key=str(i))
                if i % 3 == 0
                else client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i, idempotency_key=str(i))
            )
            self.accepted.jobs.add(job.id)
            time.sleep(pause_s)  # the pace of the producer, not a wait for anything

    def _cut(self, settings: Settings) -> None:
        """Pull the cable while host 3 runs jobs."""

        def cut_at_work() -> bool:
            self.hosts.network.plug(CUT_OFF, up=False)
            self.cut_at = time.time()
            self.held = {i for i, w in running_jobs(settings).items() if host_of(w) == CUT_OFF}
            if not self.held:
                self.hosts.network.plug(CUT_OFF, up=True)
            return bool(self.held)

        assert wait_until(cut_at_work, 60), "host 3 had no jobs"

    def _wait_for_rescue(self, ledger: Ledger) -> Iterator[str]:
        """Wait until host 2 has run all jobs, those of host 3 included, without host 3."""
        if not wait_until(lambda: self._ended(ledger) == len(self.accepted.jobs), SETTLE_S, 0.2):
            yield "the jobs of the host that was cut off did not end without it"
        ended = [ledger.get(i).finished_at for i in self.held]
        self.rescued_s = max((at for at in ended if at), default=0.0) - self.cut_at
        time.sleep(
            max(0.0, self.cut_at + self.away_s - time.time())
        )  # the fault is a length of time

    def _wait_for_return(self, client: Client, ledger: Ledger) -> Iterator[str]:
        """Submit the rest; host 3 must take some of it without an intervention."""
        before = set(self.accepted.jobs)
        self._submit(client, self.jobs - len(before), pause_s=0.02)

        def taken() -> bool:
            for job in map(ledger.get, self.accepted.jobs - before):
                if host_of(job.worker) == CUT_OFF and job.started_at:
                    sooner = min(job.started_at - self.back_at, self.returned_s or 1e9)
                    self.returned_s = sooner
            if self.returned_s is None:
                self._submit(client, 1)
            return self.returned_s is not None

        if not wait_until(taken, 120, 0.2):
            yield "the host that was cut off took no jobs in the two minutes after its return"

    def _settle(self, settings: Settings) -> Iterator[str]:
        wait_until(lambda: not any(Audit(settings, self.accepted).unsettled()), SETTLE_S, 1.0)
        audit = Audit(settings, self.accepted)
        self.report = self._report(audit)
        yield from audit.breaches()
        for job in audit.records.values():
            if job.state != "succeeded":
                yield f"{job.id} is {job.state}: {job.failure}"
        for host, worker in self.hosts.workers.items():
            if worker.child is None or not worker.child.is_alive:
                yield f"the worker of host {host} has ended"
            else:
                worker.child.stop(90)
                if worker.child.returncode != 0:
                    yield f"the worker of host {host} ended with {worker.child.returncode}"

    def _ended(self, ledger: Ledger) -> int:
        return sum(ledger.get(i).state.is_terminal for i in self.accepted.jobs)

    def _report(self, audit: Audit) -> str:
        rows = [
            "| jobs that were ended by | before the cut | during it | after it |",
            "|---|--:|--:|--:|",
        ]
        ended = Counter((host_of(j.worker), self._phase(j)) for j in audit.records.values())
        for host in (STEADY, CUT_OFF):
            rows.append(
                f"| host {host} | " + " | ".join(str(ended[host, p]) for p in range(3)) + " |"
            )
        attempts = Counter(job.attempt for job in audit.records.values())
        again = ", ".join(f"{n} × {a}" for a, n in sorted(attempts.items()))
        return "\n".join(
            [
                f"{len(self.accepted.jobs)} jobs accepted, {len(audit.records)} on record: "
                + ", ".join(f"{n} {state}" for state, n in sorted(audit.states.items())),
                f"attempts: {again}",
                f"host 3 away for {self.back_at - self.cut_at:.1f} s, "
                f"lease {self.hosts.lease_s:g} s; "
                f"the last of its {len(self.held)} running jobs had ended "
                f"{self.rescued_s or -1:.1f} s after the cut",
                f"host 3 ran jobs again {self.returned_s or -1:.1f} s after its cable was put in",
                "",
                *rows,
            ]
        )

    def _phase(self, job: Job) -> int:
        at = job.finished_at or 0.0
        return (at > self.cut_at) + (at > self.back_at)

    report: str = ""


def host_of(worker: str | None) -> int:
    """Return the number at the end of `cpu.123@host3`; 0 without a worker."""
    return int(worker.rpartition("host")[2] or 0) if worker else 0


def run(
    jobs: int, lease_s: float, away_s: float, folder: Path, concurrency: int = 4
) -> tuple[str, list[str]]:
    """Run a trial from beginning to end; return its report and its breaches."""
    with Network(4) as network, ExitStack() as stack:
        hosts = Hosts(network, folder, lease_s, concurrency, stack)
        hosts.start()
        trial = Trial(hosts, jobs, away_s)
        breaches = list(trial.run())
        return trial.report, breaches


def main() -> None:
    """Run a trial from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--lease", type=float, default=15.0, help="seconds")
    parser.add_argument("--away", type=float, default=45.0, help="seconds without a cable")
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    args = parser.parse_args()
    treat_sigterm_as_interrupt()
    with tempfile.TemporaryDirectory(prefix="hosts-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text, breaches = run(args.jobs, args.lease, args.away, folder)
    print(text)
    print(f"\nbreaches: {len(breaches)}", *breaches[:50], sep="\n")
    raise SystemExit(bool(breaches))


if __name__ == "__main__":
    main()
