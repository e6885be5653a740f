"""A client in a forked process: it works there, or reports at once why it cannot."""

import os
import subprocess
import sys

from crossmodal.settings import Settings
from producer import Client

BOTH = """
import os, signal
from producer import StorageUnavailable
from producer.pictures.png import write_png

PICTURE = write_png(bytes(3), 1, 1, 3)
signal.alarm(30)  # of which a child knows nothing
used()

child = os.fork()
if not child:
    signal.alarm(20)
try:
    said = used()
except StorageUnavailable as e:
    said = str(e)
os.write(1, f"{said}\\n".encode())  # in one piece, for both write to one pipe
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
UPLOAD = """
from producer import Client
client = Client()

def used():
    job = client.txt2img("on either side of a fork")
    return f"{job.cancel()} {client.upload(PICTURE).size}"
"""
DELETE = """
from producer import Client
client = Client()

def used():
    job = client.txt2img("on either side of a fork")
    job.cancel()
    client.storage.put(f"results/{job.id}/0.png", PICTURE, "image/png")
    client.delete(job)
    return "deleted"
"""
AWAIT = """
import asyncio
from producer import AsyncClient
client = AsyncClient()

async def submit():
    job = await client.txt2img("on either side of a fork")
    return f"{await job.cancel()} {(await client.upload(PICTURE)).size}"

def used():
    return asyncio.run(submit())
"""
POOL = """
import multiprocessing
from producer import Client
from producer.pictures.png import write_png

client = Client()

def submit(number):
    client.upload(write_png(bytes([number] * 3), 1, 1, 3))
    return client.txt2img("in a pool", seed=number).cancel().value

if __name__ == "__main__":
    submit(0)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(*pool.map_async(submit, range(1, 7)).get(40))
"""


def said(settings: Settings, storage_url: str, program: str) -> list[str]:
    """Return the output lines of a program that has a client with these settings."""
    env = {
        **os.environ,
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": storage_url,
    }
    done = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-c", program],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_redis_and_a_folder_are_used_on_both_sides_of_a_fork(settings: Settings) -> None:
    found = said(settings, settings.storage_url, UPLOAD + BOTH)
    assert found == ["canceled 69", "canceled 69"]
    with Client(settings) as client:
        assert client.queue("txt2img").finished == {"canceled": 1 + 2}


def test_an_asynchronous_client_is_used_on_both_sides_of_a_fork(settings: Settings) -> None:
    found = said(settings, settings.storage_url, AWAIT + BOTH)
    assert found == ["canceled 69", "canceled 69"]


def test_a_pool_of_forked_processes_shares_the_client_that_their_parent_has_used(
    settings: Settings,
) -> None:
    assert said(settings, settings.storage_url, POOL) == [" ".join(["canceled"] * 6)]


def test_what_a_folder_needs_threads_for_is_refused_after_a_fork(settings: Settings) -> None:
    found = said(settings, settings.storage_url, DELETE + BOTH)
    assert found[0] == "deleted"
    assert "was used before this process was forked" in found[1]


def test_a_clouds_store_that_was_used_before_the_fork_is_refused_after_it(
    settings: Settings, s3_url: str
) -> None:
    for program in (UPLOAD, AWAIT):
        found = said(settings, s3_url, program + BOTH)
        assert found[0] == "canceled 69"
        assert "was used before this process was forked" in found[1]
