"""A client in a process that is forked: Redis and folders go on, a cloud's store is refused."""

import os
import subprocess
import sys

from crossmodal.settings import Settings
from producer import Client

PROGRAM = """
import os, signal
from producer import Client, StorageUnavailable
from producer.png import write_png

signal.alarm(30)
client = Client()
job = client.txt2img("before the fork")
client.upload(write_png(bytes(3), 1, 1, 3))
child = os.fork()
try:
    said = f"{job.cancel()} {client.upload(write_png(bytes(3), 1, 1, 3)).size}"
except StorageUnavailable as e:
    said = str(e)
os.write(1, f"{said}\\n".encode())  # in one piece, for both write to one pipe
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def forked(settings: Settings, storage_url: str) -> list[str]:
    """What parent and child said, who share a client that was used before the fork."""
    env = {
        **os.environ,
        "CELERY_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSMODAL_KEY_PREFIX": settings.key_prefix,
        "CROSSMODAL_STORAGE_URL": storage_url,
    }
    done = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-c", PROGRAM],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_redis_and_a_folder_are_used_on_both_sides_of_a_fork(settings: Settings) -> None:
    assert forked(settings, settings.storage_url) == ["canceled 69", "canceled 69"]
    with Client(settings) as client:
        assert client.queue("txt2img").finished == {"canceled": 1}


def test_a_clouds_store_that_was_used_before_the_fork_is_refused_after_it(
    settings: Settings, s3_url: str
) -> None:
    said = forked(settings, s3_url)
    assert said[0] == "canceled 69"
    assert "was used before this process was forked" in said[1]
