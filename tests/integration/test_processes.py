"""What the processes of a worker are, seen from outside."""

import os
import stat
from pathlib import Path

import pytest

from producer import Client
from tests.conftest import RunningStack
from tests.waiting import until
from tests.workers import alive

PROMPT = "a large red circle on a white background"
MAX_RSS = 220_000_000


def test_a_worker_holds_no_torch_and_little_memory(client: Client, stack: RunningStack) -> None:
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(32)]
    pictures = [client.read(job.result(timeout_s=60).images[0]) for job in jobs]
    for job in [client.img2txt(picture) for picture in pictures]:
        job.result(timeout_s=60)
    decoders = stack.celery.children()
    assert 1 <= len(decoders) <= len(os.sched_getaffinity(0))
    for process in (stack.celery, *decoders):
        libraries = {m.path for m in process.memory_maps() if ".so" in m.path}
        assert libraries
        assert not [path for path in libraries if "torch" in path or "cuda" in path]
        assert process.memory_info().rss < MAX_RSS


def test_only_the_host_of_a_device_and_what_it_has_forked_hold_torch(stack: RunningStack) -> None:
    holders = {
        process
        for process in stack.supervisor.children(recursive=True)
        if any("libtorch" in m.path for m in process.memory_maps())
    }
    host = stack.model_host
    assert holders == {host, *host.children()}
    assert len(host.children()) == 2 * len(os.sched_getaffinity(0))


def test_what_a_host_has_forked_shares_its_memory(stack: RunningStack) -> None:
    host = stack.model_host
    for forked in host.children():
        assert forked.memory_full_info().uss < host.memory_info().rss / 2


@pytest.mark.slow
def test_a_host_whose_forked_process_dies_is_replaced_and_nothing_is_lost(
    client: Client, stack: RunningStack
) -> None:
    host = stack.model_host
    forked = host.children()
    forked[0].kill()
    jobs = [client.txt2img(PROMPT, seed=i) for i in range(32)]  # some batch will come to it
    assert all(job.result(timeout_s=60).images for job in jobs)
    until(lambda: not any(alive(process) for process in (host, *forked)), 60)


def test_the_socket_is_for_this_user_alone(stack: RunningStack) -> None:
    host = stack.model_host
    path = Path(host.cmdline()[host.cmdline().index("--socket") + 1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_uid == os.getuid()


def test_no_secret_is_in_a_command_line(stack: RunningStack) -> None:
    for process in stack.supervisor.children(recursive=True):
        assert "redis://" not in " ".join(process.cmdline())
