"""Redis users with least rights: what is not on the list is refused, and a refusal is noticed."""

import inspect
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.exceptions import NoPermissionError, ResponseError

from crossmodal.errors import BrokerRefused
from crossmodal.jobs import names
from crossmodal.jobs.acl import CONNECTION, LEDGER, Role
from crossmodal.jobs.connection import broker_errors, connect
from crossmodal.jobs.server import warnings
from crossmodal.local.valkey import server_binary
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.at_once import at_once
from tests.commands import run_command
from tests.servers import PASSWORD, Server, start_server, user_url, version_of

EXAMPLE = Path(__file__).parents[2] / "docker" / "redis" / "users.acl.example"
FORBIDDEN = [
    "KEYS *",
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET requirepass",
    "CONFIG SET appendonly no",
    "SHUTDOWN NOSAVE",
    "ACL LIST",
    "ACL SETUSER me on",
    "MONITOR",
    "CLIENT KILL x",
    "CLIENT LIST",
    "EVAL return(1) 0",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "REPLICAOF NO ONE",
    "SAVE",
    "BGREWRITEAOF",
    "SWAPDB 0 1",
    "MIGRATE h 1 k 0 1",
    "MODULE LIST",
    "PUBSUB CHANNELS",
    "RENAME crossmodal:x crossmodal:y",
    "COPY crossmodal:x crossmodal:y",
    "SLOWLOG GET",
]
MINE = "crossmodal:job:1"
OTHERS = ["other:job:1", "crossmodal", "crossmodalx:job:1", "txt2img2", "user:1", "celery-x"]
OF_WORKERS = [
    "unacked",
    "unacked_index",
    "_kombu.binding.celery",
    f"{uuid.UUID(int=1)}.reply.celery.pidbox",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which things are refused on purpose."""
    server = start_server(tmp_path_factory.mktemp("acl"))
    yield server
    server.child.stop(10)


@pytest.fixture(params=list(Role))
def user(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    with connect(settings_of(server, request.param)) as redis:
        yield redis


def settings_of(server: Server, role: Role) -> Settings:
    return load_settings(broker_url=server.url(role))


@at_once("command", FORBIDDEN)
def test_a_command_that_is_not_on_the_list_is_refused(user: Any, command: str) -> None:
    with pytest.raises((NoPermissionError, ResponseError), match=r"permission|unknown command"):
        user.execute_command(*command.split(" "))


@at_once("key", OTHERS)
def test_the_keys_of_others_are_refused(user: Any, key: str) -> None:
    user.hgetall(MINE)
    for call in (user.hgetall, user.delete, user.lrange):
        with pytest.raises(NoPermissionError):
            call(key, 0, 1) if call == user.lrange else call(key)


def test_a_script_has_no_more_rights_than_its_caller(user: Any) -> None:
    for text in ("return redis.call('GET', 'other:job:1')", "return redis.call('FLUSHALL')"):
        with pytest.raises(ResponseError, match=r"permission|ACL failure|can't (access|run)"):
            user.evalsha(user.script_load(text), 0)


def test_a_producer_neither_takes_messages_nor_commands_workers(server: Server) -> None:
    with connect(settings_of(server, Role.PRODUCER)) as redis:
        for key in OF_WORKERS:
            with pytest.raises(NoPermissionError):
                redis.delete(key)
        with pytest.raises(NoPermissionError):
            redis.publish("/0.celery.pidbox", '{"method": "shutdown"}')
        with pytest.raises(NoPermissionError):
            redis.brpop(["txt2img"], 1)


@at_once("queue", ["txt2img", "img2txt.bulk", "txt2img.my-model", "celery", "txt2img\x06\x16-1"])
def test_a_producer_puts_messages_into_queues_and_takes_and_reads_none(
    server: Server, queue: str
) -> None:
    if version_of(server_binary()) < (7, 0):
        pytest.skip("6.2 has no rights to write without those to read")
    with connect(settings_of(server, Role.PRODUCER)) as redis:
        redis.lpush(queue, "a message")
        assert redis.llen(queue) > 0
        for call in (redis.lpop, redis.rpop, partial(redis.lrange, start=0, end=-1)):
            with pytest.raises(NoPermissionError):
                call(queue)
        take = redis.script_load("return redis.call('RPOP', ARGV[1])")
        with pytest.raises(ResponseError, match=r"permission|ACL failure"):
            redis.evalsha(take, 0, queue)


def test_a_worker_of_the_default_prefix_reaches_no_replies_of_others(server: Server) -> None:
    oid = uuid.uuid4()
    with connect(settings_of(server, Role.WORKER)) as redis:
        assert redis.llen(f"{oid}.reply.celery.pidbox") == 0
        for key in (f"team-b:celery:{oid}.reply.celery.pidbox", "team-b:celery:a@b.celery.pidbox"):
            for call in (redis.llen, redis.rpop, redis.delete):
                with pytest.raises(NoPermissionError):
                    call(key)


def test_a_deployment_has_no_rights_in_another(server: Server) -> None:
    server.add_users("team-a")
    for role in Role:
        settings = load_settings(
            key_prefix="team-a", broker_url=user_url(server.port, role, "team-a")
        )
        with connect(settings) as redis:
            assert redis.hgetall("team-a:job:1") == {}
            assert redis.llen("team-a:celery:txt2img") == 0
            for key in (MINE, "txt2img", "unacked", "team-ab:job:1", "team-b:celery:txt2img"):
                with pytest.raises(NoPermissionError):
                    redis.delete(key)


def test_a_refusal_says_what_is_missing_and_where_to_find_it(server: Server) -> None:
    settings = settings_of(server, Role.PRODUCER)
    with pytest.raises(BrokerRefused, match="redis-acl") as caught, broker_errors(settings):
        connect(settings).get("other:key")
    assert not caught.value.retryable
    wrong = SecretStr(server.url().replace("secret", "guess"))
    with (
        Client(settings.model_copy(update={"broker_url": wrong})) as client,
        pytest.raises(BrokerRefused, match="password"),
    ):
        client.txt2img("a circle")


def test_what_cannot_be_asked_is_not_warned_of(server: Server) -> None:
    with connect(settings_of(server, Role.WORKER)) as redis:
        assert warnings(redis) == []


def test_a_session_fails_when_a_user_was_denied_anything(tmp_path: Path) -> None:
    server = start_server(tmp_path / "valkey")
    with connect(settings_of(server, Role.WORKER)) as redis, pytest.raises(NoPermissionError):
        redis.execute_command("KEYS", "*")
    with pytest.raises(AssertionError, match="'object': 'keys'"):
        server.stop()


def test_no_key_of_the_ledger_lies_where_producers_may_not_go() -> None:
    made = {}
    for name, function in inspect.getmembers(names, inspect.isfunction):
        if name.endswith("_key") and "prefix" in inspect.signature(function).parameters:
            made[name] = function("p", *["x"] * (len(inspect.signature(function).parameters) - 1))
    assert len(made) > 15
    ledger = {name: key for name, key in made.items() if name != "messages_key"}
    assert all(key.startswith("p:") and not key.startswith("p:c") for key in ledger.values()), made


def test_the_example_is_what_the_command_prints() -> None:
    done = run_command({}, "redis-acl")
    kept = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith("#")]
    assert kept == done.stdout.splitlines()
    assert all("+config" not in line and PASSWORD not in line for line in kept)


def test_one_user_may_be_printed_with_the_digest_of_a_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\nmore\n")
    argv = [
        "--role",
        "producer",
        "--user",
        "shop",
        "--password-file",
        str(tmp_path / "password"),
        "--prefix",
        "team-a",
        "--server",
        "7.0",
    ]
    done = run_command({}, "redis-acl", *argv)
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    assert done.stdout.startswith(f"user shop on #{digest} resetkeys resetchannels -@all +")
    assert "client|setinfo" not in done.stdout
    assert " ~team-a:[^c]* " in done.stdout


def test_nothing_on_the_list_is_dangerous() -> None:
    """Redis's own categories; of what is needed, these are the exceptions it makes."""
    dangerous = {"flushall", "keys", "config", "debug", "shutdown", "monitor", "acl", "eval"}
    assert not dangerous & {c.partition("|")[0] for c in (*CONNECTION, *LEDGER)}
