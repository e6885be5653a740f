"""A backup made while the queue is in use, as docs/operations.md says, and a start from it."""

import shutil
from pathlib import Path

from crossmodal.jobs.record import JobState
from producer import Client
from tests.conftest import settings_of, stack_environment
from tests.servers import Server, start_server
from tests.waiting import until
from tests.workers import running_worker

PROMPT = "a large red circle on a white background"
WAIT_S = 90.0


def back_up(server: Server, folder: Path, copy: Path) -> None:
    """Redis first, so that no record speaks of a blob that the copy lacks."""
    with server.admin() as redis:
        before = redis.config_get("auto-aof-rewrite-percentage")["auto-aof-rewrite-percentage"]
        redis.config_set("auto-aof-rewrite-percentage", 0)  # or files may go while they are copied
        until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], WAIT_S)
        shutil.copytree(folder / "valkey" / "appendonlydir", copy / "valkey" / "appendonlydir")
        redis.config_set("auto-aof-rewrite-percentage", before)
    shutil.copytree(folder / "storage", copy / "storage")


def test_a_backup_has_what_was_ended_and_goes_on_with_what_waited(tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    server = start_server(here / "valkey", is_safe=True)
    env = stack_environment(server.port, here)
    with Client(settings_of(env)) as client:
        with running_worker(env, tmp_path / "first", 2):
            drawn = client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S)
            png = client.read(drawn.images[0])
        waiting = [client.txt2img(PROMPT, seed=7).id for _ in range(3)]
        waiting.append(client.img2txt(png).id)
        back_up(server, here, copy)
        client.cancel(waiting[0])  # after the backup: it cannot know
    server.stop()
    shutil.rmtree(here)

    server = start_server(copy / "valkey")
    env = stack_environment(server.port, copy)
    with Client(settings_of(env)) as client, running_worker(env, tmp_path / "second", 2):
        assert client.read(client.job(drawn.job).result(timeout_s=1).images[0]) == png
        again = [client.job(job).result(timeout_s=WAIT_S) for job in waiting]
        assert [client.read(result.images[0]) for result in again[:3]] == [png] * 3
        assert again[3].captions
        assert {client.job(job).status().state for job in waiting} == {JobState.SUCCEEDED}
    server.stop()
