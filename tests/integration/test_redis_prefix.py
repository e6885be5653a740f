"""Two deployments in one database: neither sees the other's jobs, messages, workers or events."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossmodal.jobs.acl import Role
from crossmodal.jobs.connection import transport_options
from crossmodal.jobs.names import WEBHOOK_QUEUE, messages_key, webhooks_key
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.webhooks import Deliveries
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings, load_settings
from tests.celery_app import celery_app
from tests.courier import courier, deliveries_of, has_gone_through, hooked
from tests.ledgers import Ledger
from tests.servers import Server, start_server, user_url
from tests.waiting import until

PREFIXES = ("crossmodal", "team-a", "team-a.b")


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    ledger: Ledger
    deliveries: Deliveries

    def workers(self) -> set[str]:
        recent = self.ledger.runner.run(Workers(self.settings).recent())
        return {worker.name for worker in recent}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A database that several deployments share, each with a user of its own."""
    server = start_server(tmp_path_factory.mktemp("shared"))
    for prefix in PREFIXES[1:]:
        server.add_users(prefix)
    yield server
    server.stop()


@pytest.fixture
def deployments(server: Server, tmp_path: Path) -> Iterator[list[Deployment]]:
    with ExitStack() as stack:
        made = []
        for prefix in PREFIXES:
            settings = load_settings(
                broker_url=user_url(server.port, Role.WORKER, prefix), key_prefix=prefix,
                storage_url=(tmp_path / prefix).as_uri(), result_backend="",
            )  # fmt: skip
            runner = stack.enter_context(Runner(settings))
            made.append(Deployment(
                settings, Ledger(settings, runner), Deliveries(settings, runner.redis)
            ))  # fmt: skip
        yield made


def answers(settings: Settings) -> list[Any]:
    """Of all workers that hear a broadcast."""
    with celery_app(settings) as app:
        return list(app.control.ping(timeout=1))


def is_answered_by_one(settings: Settings) -> bool:
    return len(answers(settings)) == 1


def test_workers_take_only_the_messages_of_their_own_deployment(
    server: Server, deployments: list[Deployment], tmp_path: Path
) -> None:
    first, second, idle = deployments
    with courier(first.settings, tmp_path / "1"), courier(second.settings, tmp_path / "2"):
        jobs = [hooked(deployment.ledger) for deployment in deployments]
        for deployment, job_id in zip((first, second), jobs, strict=False):
            done = partial(has_gone_through, deployment.deliveries, job_id)
            until(done, 60, "a delivery")
        seen = [d.workers() for d in deployments]
        assert [len(names) for names in seen] == [1, 1, 0]
        assert not seen[0] & seen[1]
        for deployment in (first, second):
            until(partial(is_answered_by_one, deployment.settings), 60, "one answer")
        assert answers(idle.settings) == []
    # The third has no worker: its message waits, and nobody else has seen it.
    assert [d.outcome for d in deliveries_of(idle.deliveries, jobs[2])] == ["pending"]
    with server.admin() as redis:
        assert redis.llen(messages_key(idle.settings.key_prefix, WEBHOOK_QUEUE)) == 1
        assert redis.zcard(webhooks_key(idle.settings.key_prefix, "pending")) == 1


def test_all_keys_of_a_deployment_lie_below_its_prefix(
    server: Server, deployments: list[Deployment], tmp_path: Path
) -> None:
    with server.admin() as redis:
        redis.flushdb()
        deployment = deployments[1]
        with courier(deployment.settings, tmp_path):
            job_id = hooked(deployment.ledger)
            until(lambda: has_gone_through(deployment.deliveries, job_id), 60)
            channels = redis.pubsub_numpat()
            found = list(redis.scan_iter())
        assert channels > 0
        assert len(found) > 5
        assert [key for key in found if not key.startswith("team-a:")] == []


def test_by_default_plain_celery_needs_to_know_no_prefix() -> None:
    assert messages_key("crossmodal", "txt2img") == "txt2img"
    assert messages_key("team-a", "txt2img") == "team-a:celery:txt2img"
    assert "global_keyprefix" not in transport_options(load_settings())
