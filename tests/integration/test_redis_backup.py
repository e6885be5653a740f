"""A copy of the append-only file, made while jobs came in, is a backup: docs/operations.md."""

import shutil
from pathlib import Path

from crossmodal.jobs.connection import connect
from crossmodal.jobs.names import messages_key, new_job_id
from crossmodal.jobs.record import JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings, load_settings
from tests.ledgers import Ledger
from tests.servers import Server, start_server
from tests.waiting import until


def settings_of(server: Server) -> Settings:
    return load_settings(broker_url=server.url())


def submit(ledger: Ledger) -> str:
    job_id = new_job_id()
    ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", message=f'"{job_id}"'))
    return job_id


def test_jobs_of_before_the_copy_are_there_again(tmp_path: Path) -> None:
    server = start_server(tmp_path / "one", is_safe=True)
    ledger = Ledger(settings_of(server))
    kept = [submit(ledger) for _ in range(50)]
    with server.admin() as redis:
        redis.config_set("auto-aof-rewrite-percentage", 0)
        until(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0)
        kept.append(submit(ledger))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    later = submit(ledger)
    ledger.close()
    server.stop()

    restored = start_server(tmp_path / "two")
    ledger = Ledger(settings_of(restored))
    assert {ledger.get(job_id).state for job_id in kept} == {JobState.QUEUED}
    with connect(settings_of(restored)) as redis:
        assert redis.llen(messages_key("crossmodal", "txt2img")) == len(kept)
        assert redis.exists(f"crossmodal:job:{later}") == 0
    ledger.close()
    restored.stop()
