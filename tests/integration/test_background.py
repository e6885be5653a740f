"""`crossmodal background` as a process: how it shows that it is alive, and how it ends."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.names import BACKGROUND
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.processes import Child
from crossmodal.settings import Settings
from producer.gateway import readiness
from producer.gateway.app import make_app
from producer.gateway.routes.operations import NO_BACKGROUND
from tests.background import background, hooked
from tests.gateway import calling
from tests.receiver import listening
from tests.waiting import until
from tests.workers import environment
from worker.doctor import workers as findings
from worker.health import Health, examine


@pytest.fixture
def settings(settings: Settings, short_path: Path) -> Settings:
    return settings.model_copy(update={"run_dir": short_path / "run", "allow_private_urls": True})


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    with Runner(settings) as runner:
        yield runner


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings) | {
        "CROSSMODAL_RUN_DIR": str(settings.run_dir),
        "CROSSMODAL_ALLOW_PRIVATE_URLS": "true",
    }


@pytest.fixture
def process(env: dict[str, str], tmp_path: Path) -> Iterator[Child]:
    with background(env, tmp_path / "background") as process:
        yield process


def announced(runner: Runner, settings: Settings) -> int:
    recent = runner.run(Workers(settings).recent())
    return sum(BACKGROUND in worker.queues for worker in recent)


def test_it_is_live_and_ready_for_probes_and_known_to_doctor_while_it_runs(
    process: Child, runner: Runner, settings: Settings
) -> None:
    [health] = examine(settings)
    assert isinstance(health, Health)
    assert (health.worker, health.live, health.ready) == (BACKGROUND, True, True)
    assert announced(runner, settings) == 1
    found = {f.subject: (f.found, f.mark) for f in findings(settings)}
    assert found["background process"] == ("1", "ok")
    process.send(signal.SIGTERM)
    assert process.wait(30)
    assert process.returncode == 0
    assert announced(runner, settings) == 0
    assert examine(settings) == []


def test_doctor_warns_where_something_waits_for_it(runner: Runner, settings: Settings) -> None:
    hooked(runner, settings, "http://127.0.0.1:1/")
    found = {f.subject: f for f in findings(settings)}["background process"]
    assert (found.found, found.mark) == ("none: 1 webhooks and 0 batches wait", "warn")
    assert "`crossmodal background`" in found.remedy


def test_a_ready_gateway_says_whether_it_runs(
    settings: Settings, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    app = make_app(settings, needs_keys=False)

    async def scenario() -> tuple[str, str]:
        async with calling(app) as http:
            before = (await http.get("/readyz")).text
            runner.run(Workers(settings).announce("one", queues=[BACKGROUND]))
            return before, (await http.get("/readyz")).text

    assert asyncio.run(scenario()) == (f"ok\n{NO_BACKGROUND}\n", "ok\n")


def test_it_finishes_posts_when_it_is_told_to_end(
    process: Child, runner: Runner, settings: Settings
) -> None:
    with listening() as receiver:
        receiver.may_answer.clear()
        job_id = hooked(runner, settings, receiver.url)
        until(lambda: receiver.jobs() == [job_id], 30, "the post")
        process.send(signal.SIGTERM)
        until(lambda: announced(runner, settings) == 0, 30, "that it leaves")
        assert process.is_alive
        receiver.may_answer.set()
        assert process.wait(30)
    assert process.returncode == 0
    assert runner.run(Deliveries(settings).counts())["delivered"] == 1


def test_a_second_signal_ends_it_at_once(
    process: Child, runner: Runner, settings: Settings
) -> None:
    with listening() as receiver:
        receiver.may_answer.clear()
        hooked(runner, settings, receiver.url)
        until(lambda: receiver.jobs() != [], 30, "the post")
        process.send(signal.SIGTERM)
        until(lambda: announced(runner, settings) == 0, 30, "that it leaves")
        process.send(signal.SIGTERM)
        assert process.wait(30)
    assert process.returncode == 1
    assert runner.run(Deliveries(settings).counts())["pending"] == 1


def test_it_goes_on_after_its_connections_are_cut(
    process: Child, runner: Runner, settings: Settings, admin: Any
) -> None:
    with listening() as receiver:
        admin.client_kill_filter(_type="normal", skipme=True)
        job_id = hooked(runner, settings, receiver.url)
        until(lambda: receiver.jobs() == [job_id], 30, "the delivery")
    assert process.is_alive
