"""What `crossmodal doctor` finds of the queue: who serves it, and whom Redis lets in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from crossmodal.jobs.runners import Runner
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import tasks
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.settings import Settings, load_settings
from worker.doctor import default_user, workers


def test_each_queue_without_a_worker_is_a_warning_with_a_remedy(settings: Settings) -> None:
    with Runner(settings) as runner:
        for name in ("one@host", "two@host"):
            runner.run(Workers(settings).announce(name, queues=["txt2img", "img2txt"]))
    found = {finding.subject: finding for finding in workers(settings)}
    assert set(found) == {*(f"workers of {task!s}" for task in tasks()), "background process"}
    assert (found["workers of txt2img"].found, found["workers of txt2img"].mark) == ("2", "ok")
    bulk = found["workers of txt2img.bulk"]
    assert (bulk.found, bulk.ok, bulk.mark) == ("none: its jobs wait", True, "warn")
    assert "`crossmodal worker`" in bulk.remedy
    assert found["background process"].mark == "ok"  # not everybody has webhooks


def test_users_beside_a_password_for_all_are_no_reason_to_warn(settings: Settings) -> None:
    assert default_user(settings).mark == "ok"


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Any]:
    """The settings and an admin of a server that lets in everybody."""
    port = free_port()
    child = start_valkey(tmp_path / "valkey", port)
    with Redis(port=port) as redis:
        yield load_settings(broker_url=valkey_url(port)), redis
    child.stop(10)


def test_who_is_let_in_without_a_password_is_warned_of_where_that_is_a_danger(
    open_server: Any,
) -> None:
    settings, redis = open_server
    assert default_user(settings).found == "open, but only to this machine"
    redis.config_set("bind", "*")
    assert default_user(settings).mark == "ok"  # protected-mode turns others away
    redis.config_set("protected-mode", "no")
    finding = default_user(settings)
    assert (finding.mark, "listens for other machines" in finding.found) == ("warn", True)
    redis.config_set("bind", "127.0.0.1")
    redis.execute_command("ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all")
    finding = default_user(settings)
    assert (finding.mark, "users of their own" in finding.found) == ("warn", True)
    assert "user default off" in finding.remedy
    redis.execute_command("ACL", "SETUSER", "default", "off")
    me = load_settings(
        broker_url=settings.broker_url.get_secret_value().replace("//", "//me:secret@")
    )
    assert default_user(me).mark == "ok"
