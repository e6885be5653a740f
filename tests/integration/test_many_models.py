"""Several models on one device: what their jobs find, and who makes room for whom."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from crossmodal.jobs.names import celery_prefix
from crossmodal.jobs.record import ModelState
from crossmodal.processes import Child
from crossmodal.settings import Settings
from producer import Client, JobHandle, JobNotFound, ModelBroken, ModelNotFound
from tests.waiting import until
from tests.workers import celery_worker, environment, hosts_of, running_worker

WAIT_S = 60.0
ONE = {"CROSSMODAL_DEVICE_MEMORY": "1000", "CROSSMODAL_SWITCH_AFTER_S": "3"}  # a device that has
# room for one of the fake models, which need 600 bytes, or so they say


@contextmanager
def worker(
    settings: Settings, folder: Path, models: str, **env: str
) -> Iterator[tuple[Child, Client]]:
    """A worker of models, and a client."""
    with (
        running_worker(environment(settings) | env, folder, 4, models) as child,
        Client(settings) as client,
    ):
        yield child, client


def drawn_by(jobs: list[JobHandle]) -> list[str]:
    return [job.result(timeout_s=WAIT_S).model for job in jobs]


def switches(log: Path) -> int:
    return log.read_text().count("is loaded")


def test_each_job_is_run_by_the_model_that_it_names(settings: Settings, tmp_path: Path) -> None:
    with worker(settings, tmp_path / "w", "a,b") as (_, client):
        until(lambda: len(client.models(max_age_s=0).holders("b")) == 1)
        jobs = [client.txt2img("x", model=m, seed=1) for m in ("a", "b", None, "b")]
        assert drawn_by(jobs) == ["a", "b", "a", "b"]
        assert [client.record(job).queue for job in jobs] == ["txt2img", "txt2img.b"] * 2
        items = list(client.map_txt2img(["x", "y"] * 3, model="b"))
        assert all(item.images for item in items)
        assert client.queue("txt2img.bulk", model="b").finished == {"succeeded": 1}
        with pytest.raises(
            ModelNotFound, match="no model of txt2img is called 'c': known models: a, b"
        ):
            client.txt2img("x", model="c")


def test_plain_celery_finds_the_model_too(settings: Settings, tmp_path: Path) -> None:
    with worker(settings, tmp_path / "w", "a,b") as (_, client):
        until(lambda: client.models(max_age_s=0).state("b") is ModelState.LOADED)
        app = Celery(broker=settings.broker_url.get_secret_value())
        app.conf.broker_transport_options = {"global_keyprefix": celery_prefix(settings.key_prefix)}
        sent = [
            app.send_task("crossmodal.txt2img", kwargs={"prompt": "x", "model": m})
            for m in ("b", "a", "c")
        ]
        first, second, third = (sent_job(client, one.id) for one in sent)
        assert drawn_by([first, second]) == ["b", "a"]
        assert client.record(first).queue == "txt2img.b"
        third.wait(WAIT_S)
        failure = client.record(third).failure
        assert failure is not None
        assert failure.code == "model_not_found"
        app.close()


def sent_job(client: Client, job_id: str) -> JobHandle:
    """A job that plain Celery sent, once a worker has made its record."""
    found: list[JobHandle] = []

    def is_there() -> bool:
        try:
            found.append(client.job(job_id))
        except JobNotFound:
            return False
        return True

    until(is_there)
    return found[0]


def test_models_take_turns_on_a_device_that_has_room_for_one(
    settings: Settings, tmp_path: Path
) -> None:
    patient = ONE | {"CROSSMODAL_SWITCH_AFTER_S": "60"}
    with worker(settings, tmp_path / "w", "a,b,c", **patient) as (child, client):
        waiting = client.txt2img("x", model="b", seed=1)
        until(lambda: waiting.status().waits_for in ("a device for b", "loading b", None))
        waiting.wait(WAIT_S)
        jobs = [client.txt2img(f"{i}", model="abc"[i % 3], seed=i) for i in range(60)]
        assert drawn_by(jobs) == ["a", "b", "c"] * 20
        assert {client.record(job).attempt for job in jobs} == {1}
        assert switches(tmp_path / "w" / "log") <= 8
        assert len(hosts_of(child)) == 1


@pytest.mark.slow
def test_nobody_waits_for_ever_beside_a_model_that_always_has_jobs(
    settings: Settings, tmp_path: Path
) -> None:
    with worker(settings, tmp_path / "w", "a,b", **ONE) as (_, client):
        busy = [client.txt2img("snail", model="a", seed=i) for i in range(8)]
        late = client.txt2img("x", model="b", seed=1)
        late.wait(WAIT_S)
        assert any(job.status().state == "queued" for job in busy)
        assert drawn_by(busy) == ["a"] * 8


@pytest.mark.slow
def test_a_host_that_is_killed_while_it_loads_is_started_again(
    settings: Settings, tmp_path: Path
) -> None:
    with worker(settings, tmp_path / "w", "a,b", FAKE_LOAD_S="2", **ONE) as (child, client):
        job = client.txt2img("x", model="b", seed=1)
        until(lambda: job.status().waits_for == "loading b")
        until(lambda: any("cpu-1.sock" in " ".join(h.cmdline()) for h in hosts_of(child)))
        [host] = [h for h in hosts_of(child) if "cpu-1.sock" in " ".join(h.cmdline())]
        host.send_signal(signal.SIGKILL)
        assert drawn_by([job]) == ["b"]
        assert client.record(job).attempt == 1


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_switches_loses_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    with worker(settings, tmp_path / "w", "a,b", FAKE_LOAD_S="1", **ONE) as (child, client):
        running = client.txt2img("snail", model="a", seed=1)
        until(lambda: running.status().state == "running")
        late = client.txt2img("x", model="b", seed=1)
        until(lambda: late.status().waits_for == "loading b")
        killed = celery_worker(child)
        killed.kill()
        psutil.wait_procs([killed], 30)
        assert drawn_by([running, late]) == ["a", "b"]


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_refused_and_the_others_go_on(
    settings: Settings, tmp_path: Path
) -> None:
    with worker(settings, tmp_path / "w", "a,broken", **ONE) as (_, client):
        early = client.txt2img("x", model="broken", seed=1)
        early.wait(WAIT_S)
        failure = client.record(early).failure
        assert failure is not None
        assert (failure.code, "has no weights" in failure.message) == ("model_broken", True)
        assert [letter.id for letter in client.dead_letters.list()] == [early.id]
        with pytest.raises(ModelBroken, match="cannot be loaded: broken has no weights"):
            client.txt2img("x", model="broken")
        assert client.models(max_age_s=0).state("broken") is ModelState.BROKEN
        assert drawn_by([client.txt2img("x", seed=1)]) == ["a"]


@pytest.mark.slow
def test_two_workers_share_the_models_out(settings: Settings, tmp_path: Path) -> None:
    with (
        worker(settings, tmp_path / "one", "a,b", **ONE) as (_, client),
        worker(settings, tmp_path / "two", "a,b", **ONE),
    ):
        jobs: list[Any] = [client.txt2img("snail", model="ab"[i % 2], seed=i) for i in range(8)]
        assert drawn_by(jobs) == ["a", "b"] * 4
        logs = [tmp_path / name / "log" for name in ("one", "two")]
        assert sum(log.read_text().count("the model b is loaded") for log in logs) == 1


@pytest.mark.slow
def test_jobs_of_a_slow_model_are_shared_also_with_a_worker_that_comes_later(
    settings: Settings, tmp_path: Path
) -> None:
    """Each takes three seconds, and may take six: its wait for others does not count."""
    slow = {"FAKE_MAX_BATCH": "1", "CROSSMODAL_RUN_TIME_LIMIT_S": "6"}
    with (
        worker(settings, tmp_path / "one", "a", **slow) as (_, client),
        worker(settings, tmp_path / "two", "a", **slow),
    ):
        jobs = [client.txt2img("painter", seed=i) for i in range(32)]
        until(lambda: client.queue("txt2img").running > 0)
        with worker(settings, tmp_path / "three", "a", **slow):
            drawn_by(jobs)
        records = [client.record(job) for job in jobs]
        assert {record.attempt for record in records} == {1}
        shares = Counter(record.worker for record in records)
        assert len(shares) == 3
        assert min(shares.values()) >= 4


@pytest.mark.slow
def test_a_default_model_that_cannot_be_loaded_makes_room_for_another(
    settings: Settings, tmp_path: Path
) -> None:
    with worker(settings, tmp_path / "w", "broken,b", **ONE) as (_, client):
        assert drawn_by([client.txt2img("x", model="b", seed=1)]) == ["b"]
        assert client.models(max_age_s=0).state("broken") is ModelState.BROKEN
