"""Two deployments in one database: neither sees the other's jobs, messages, workers or events."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import pytest

from crossmodal.jobs.acl import Role
from crossmodal.jobs.connection import transport_options
from crossmodal.jobs.names import messages_key
from crossmodal.jobs.record import JobState
from crossmodal.processes import Child
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.celery_app import celery_app
from tests.servers import Server, start_server, user_url
from tests.waiting import until
from tests.workers import environment, running_worker

PREFIXES = ("crossmodal", "team-a", "team-a.b")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A database that several deployments share, each with a user of its own."""
    server = start_server(tmp_path_factory.mktemp("shared"))
    for prefix in PREFIXES[1:]:
        server.add_users(prefix)
    yield server
    server.stop()


@pytest.fixture
def deployments(server: Server, tmp_path: Path) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Client(
                    load_settings(
                        broker_url=user_url(server.port, Role.WORKER, prefix),
                        key_prefix=prefix,
                        storage_url=(tmp_path / prefix).as_uri(),
                        result_backend="",
                    )
                )
            )
            for prefix in PREFIXES
        ]


def answers(settings: Settings) -> set[str]:
    """The names of all workers that hear a broadcast."""
    with celery_app(settings) as app:
        return {name for answer in app.control.ping(timeout=1) for name in answer}


def names_of(client: Client) -> set[str]:
    """The names of the workers that have announced themselves."""
    return {worker.name for worker in client.workers()}


def serving(client: Client, folder: Path) -> AbstractContextManager[Child]:
    return running_worker(environment(client.settings), folder, 1)


def test_workers_take_only_the_messages_of_their_own_deployment(
    server: Server, deployments: list[Client], tmp_path: Path
) -> None:
    first, second, idle = deployments
    with serving(first, tmp_path / "1"), serving(second, tmp_path / "2"):
        jobs = [client.txt2img("a red circle", seed=7) for client in deployments]
        for job in jobs[:2]:
            assert job.result(timeout_s=60).images
        assert names_of(first)
        assert names_of(second)
        assert not names_of(first) & names_of(second)
        for client in (first, second):
            until(partial(is_answered_by_its_own, client), 60, "answers")
        assert answers(idle.settings) == names_of(idle) == set()
    # The third has no worker: its message waits, and nobody else has seen it.
    assert jobs[2].status().state is JobState.QUEUED
    with server.admin() as redis:
        assert redis.llen(messages_key(idle.settings.key_prefix, "txt2img")) == 1


def is_answered_by_its_own(client: Client) -> bool:
    return answers(client.settings) == names_of(client)


def test_all_keys_of_a_deployment_lie_below_its_prefix(
    server: Server, deployments: list[Client], tmp_path: Path
) -> None:
    with server.admin() as redis:
        redis.flushdb()
        client = deployments[1]
        with serving(client, tmp_path / "worker"):
            client.txt2img("a red circle", seed=7).result(timeout_s=60)
            channels = redis.pubsub_numpat()
            found = list(redis.scan_iter())
        assert channels > 0
        assert len(found) > 5
        assert [key for key in found if not key.startswith("team-a:")] == []


def test_by_default_plain_celery_needs_to_know_no_prefix() -> None:
    assert messages_key("crossmodal", "txt2img") == "txt2img"
    assert messages_key("team-a", "txt2img") == "team-a:celery:txt2img"
    assert "global_keyprefix" not in transport_options(load_settings())
