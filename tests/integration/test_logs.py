"""What real worker processes write: whole lines of JSON that name jobs and quote none."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery

from crossmodal.settings import Settings, load_settings
from producer import Client, JobFailed
from tests.conftest import stack_environment
from tests.integration.test_main_job import is_known
from tests.servers import PASSWORD, start_server
from tests.waiting import until
from tests.workers import running_worker

MARKER = "zanzibar"  # no word that the shipped models know
PROMPT = f"a large red circle on a {MARKER} white background"
WAIT_S = 60
CELERY_SAYS = b"worker: Warm shutdown (MainProcess)"  # past all logging, from a signal handler

Line = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, set[str]]:
    """All that a worker wrote at level INFO while jobs succeeded and failed, and their ids."""
    folder = tmp_path_factory.mktemp("logs")
    server = start_server(folder / "valkey")
    env = stack_environment(server.port, folder)
    url = env["CELERY_BROKER_URL"]
    env["CELERY_RESULT_BACKEND"] = url.replace("/0", "/1")  # then Celery has results to write out
    settings = load_settings(broker_url=url, storage_url=env["CROSSMODAL_STORAGE_URL"])
    with running_worker(env, folder / "worker", 2):
        ids = run_jobs(settings, Celery(broker=url))
    server.stop()
    return (folder / "worker" / "log").read_bytes(), ids


def run_jobs(settings: Settings, plain: Celery) -> set[str]:
    """Jobs that end in every way that could have their prompt told."""
    with Client(settings) as client, plain:
        jobs = [client.txt2img(PROMPT), client.txt2img(f"{MARKER} {MARKER}")]
        for kwargs in ({"prompt": PROMPT}, {"prompt": MARKER}, {"prompt": PROMPT, "count": MARKER}):
            sent = plain.send_task("crossmodal.txt2img", kwargs=kwargs).id
            until(lambda sent=sent: is_known(client, sent))  # type: ignore[misc]
            jobs.append(client.job(sent))
        results = list(client.map_txt2img([PROMPT, MARKER]))
        assert [r.failure and r.failure.code for r in results] == [None, "unknown_words"]
        endings = [ending(job.result, timeout_s=WAIT_S) for job in jobs]
        bad = ["unknown_words", "invalid_params"]
        assert endings == ["succeeded", bad[0], "succeeded", *bad]
        return {job.id for job in jobs}


def ending(result: Any, **options: Any) -> str:
    try:
        result(**options)
    except JobFailed as e:
        return e.code
    return "succeeded"


@pytest.fixture(scope="module")
def lines(written: tuple[bytes, set[str]]) -> list[Line]:
    raw = [line for line in written[0].splitlines() if line not in (b"", CELERY_SAYS)]
    return [json.loads(line) for line in raw]


def test_nothing_that_is_secret_or_was_asked_for_is_in_the_log(
    written: tuple[bytes, set[str]],
) -> None:
    text = written[0].decode().lower()
    assert MARKER not in text
    assert PASSWORD not in text
    assert quote(PASSWORD, safe="") not in text


def test_every_line_says_when_how_bad_and_who(lines: list[Line]) -> None:
    assert {line["process"] for line in lines} == {"supervisor", "worker", "host"}
    for line in lines:
        assert line["timestamp"].endswith("Z")
        assert line["level"] in ("info", "warning", "error")
        assert line["logger"]
        assert line["event"]
        assert line["pid"] > 0
    assert {line["device"] for line in lines if line["process"] == "host"} == {"cpu"}
    workers = {line["worker"].partition(".")[0] for line in lines if line["process"] == "worker"}
    assert workers == {"cpu"}


def test_what_celery_says_of_a_task_names_its_job(
    lines: list[Line], written: tuple[bytes, set[str]]
) -> None:
    for job_id in written[1]:
        told = [line for line in lines if line.get("job") == job_id]
        assert all(line["task"] == "txt2img" for line in told)
        assert f"Task crossmodal.txt2img[{job_id}] received" in [line["event"] for line in told]
        assert len(told) > 1


def test_a_job_that_fails_by_its_callers_fault_is_told_by_its_code(lines: list[Line]) -> None:
    failed = [line for line in lines if "raised" in line["event"]]
    assert sorted(line["code"] for line in failed) == ["invalid_params"] + 2 * ["unknown_words"]
    assert not any("exception" in line for line in failed)
    assert all(line["event"].endswith(f": {line['code']}") for line in failed)
