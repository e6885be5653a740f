"""A gateway that lacks disk, descriptors or threads answers 503, and leaves no files."""

import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from crossmodal.settings import Settings
from tests.bodies import Route, requests_at
from tests.conftest import need
from tests.gateway import Gateway, in_thread, running_gateway
from tests.waiting import until
from tests.workers import environment

LINE = b'{"url": "/v1/txt2img", "body": {"prompt": "a red circle"}}\n'
JSONL = {"Content-Type": "application/jsonl"}
DRAW = {"task": "txt2img", "prompt": "a red circle"}
LARGE = bytes(2_000_000)  # more than a form keeps in memory


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make TMPDIR a full disk; yield the file that fills it."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "test", str(folder)]
    need(subprocess.run(mount, capture_output=True).returncode == 0, "the right to mount")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (filler := folder / "filler").touch()
    try:
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            file.writelines(bytes(4_096) for _ in range(32))
        yield filler
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def ask(http: httpx2.Client) -> dict[str, httpx2.Response]:
    """Call each route that needs more than memory for its body; return the replies."""
    return {
        "batches": http.post("/v1/batches", content=LINE * 10_000, headers=JSONL),
        "files": http.post("/v1/files", data={"purpose": "batch"}, files={"file": LARGE}),
        "forms": http.post("/v1/jobs", data={"task": "img2txt"}, files={"file": LARGE}),
        "jobs": http.post("/v1/jobs", json=DRAW),
        "page": http.get("/page/page.css"),
    }


def check(replies: dict[str, httpx2.Response], *short: str) -> None:
    """Check that no reply is an internal error, and that these routes can be tried again."""
    assert not {name: r.text for name, r in replies.items() if r.status_code == 500}
    for name in short:
        reply = replies[name]
        assert reply.status_code == 503, reply.text
        assert reply.headers["retry-after"]
        assert reply.json()["code" if name != "files" else "error"]


def test_a_full_tmpdir_is_a_matter_of_time(settings: Settings, full: Path) -> None:
    with in_thread(settings, needs_keys=False) as url, httpx2.Client(base_url=url) as http:
        replies = ask(http)
        check(replies, "batches", "files", "forms")
        assert replies["forms"].json()["retryable"] is True
        assert replies["files"].headers["x-should-retry"] == "true"
        full.unlink()
        assert http.post("/v1/batches", content=LINE, headers=JSONL).status_code == 202


@pytest.fixture
def gateway(settings: Settings, tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(environment(settings), tmp_path) as gateway:
        yield gateway


def pid_of(gateway: Gateway) -> int:
    assert gateway.child.process is not None
    return gateway.child.process.pid


def test_without_file_descriptors_it_says_so(gateway: Gateway) -> None:
    pid = pid_of(gateway)
    assert gateway.http.get("/livez").status_code == 200  # on a connection that is kept alive
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds(), before[1]))
    check(ask(gateway.http), "batches", "files", "forms")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert gateway.http.post("/v1/jobs", json=DRAW).status_code == 202


@pytest.fixture
def _large_stacks() -> Iterator[None]:
    """Give threads of new processes stacks too large to be cached for other threads."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1_000_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_STACK, before)


@pytest.mark.usefixtures("_large_stacks")
def test_without_a_thread_it_says_so(settings: Settings, tmp_path: Path) -> None:
    """While its threads are busy, there is no memory for the stack of another one."""
    with (
        running_gateway(environment(settings), tmp_path) as gateway,
        ThreadPoolExecutor() as threads,
    ):
        pid = pid_of(gateway)
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        most = psutil.Process(pid).memory_info().vms + 300_000_000
        resource.prlimit(pid, resource.RLIMIT_AS, (most, before[1]))
        batches = [threads.submit(batch, gateway) for _ in range(8)]
        replies = [gateway.http.post("/v1/jobs", json=DRAW)]
        while not all(batch.done() for batch in batches):
            replies.append(gateway.http.post("/v1/jobs", json=DRAW))
        replies += [batch.result() for batch in batches]
        assert {reply.status_code for reply in replies} == {202, 503}
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert gateway.http.post("/v1/jobs", json=DRAW).status_code == 202


def batch(gateway: Gateway) -> httpx2.Response:
    return httpx2.post(
        f"{gateway.url}/v1/batches", content=LINE * 20_000, headers=JSONL, timeout=100
    )


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
def test_what_a_gateway_was_given_goes_when_it_does(
    settings: Settings, tmp_path: Path, kill: bool
) -> None:
    env = environment(settings) | {"TMPDIR": str(tmp_path)}

    def left() -> list[Path]:
        return list(tmp_path.glob("crossmodal-upload-*"))

    with running_gateway(env, tmp_path) as gateway, requests_at(gateway.url) as begin:
        half = begin(Route("/v1/batches", "application/jsonl"), "", 100_000)
        half.send(50_000)
        until(lambda: bool(left()), 60, "a file that is taken")
        psutil.Process(pid_of(gateway)).send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        until(lambda: not gateway.child.is_alive, 60, "its end")
    assert bool(left()) is kill
    assert "Traceback" not in gateway.log.read_text()
    with running_gateway(env, tmp_path):
        assert not left()
