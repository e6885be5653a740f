"""One broker URL: what is read from it, what Celery is given, what is refused, in which words."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.jobs.address import parse_address
from crossmodal.jobs.connection import broker_errors, connect, connection_name, transport_options
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.server import check_server
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.settings import Settings, load_settings, redacted
from producer.client import Client, CommandClient
from tests.at_once import at_once
from tests.certificates import Authority
from tests.ledgers import Ledger
from tests.servers import BINARY
from worker.celery.broker import backend_conf, broker_conf

SENTINELS = "sentinel://ann:p%40ss@one:26379/2;sentinel://two;sentinel://three:26381"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority(tmp_path).vouch("me")
    return tmp_path


def test_a_plain_url(monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_address("redis://ann:p%2Fss@[::1]:6390/3")
    assert address.hosts == (("::1", 6390),)
    assert address.account == {"username": "ann", "password": "p/ss", "db": 3}
    assert address.tls is None
    assert address.public_url == "redis://[::1]:6390"
    assert address.private_url == "redis://ann:p%2Fss@[::1]:6390/3"
    assert "p/ss" not in repr(address)


def test_tls_checks_certificate_and_name_unless_told_otherwise(folder: Path) -> None:
    plain = parse_address("rediss://h")
    assert plain.tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    files = f"ssl_ca_certs={folder}/ca.pem&ssl_certfile={folder}/me.pem&ssl_keyfile={folder}/me.key"
    whole = parse_address(f"rediss://h?{files}&ssl_check_hostname=false")
    assert whole.tls == {
        "ssl_ca_certs": f"{folder}/ca.pem",
        "ssl_certfile": f"{folder}/me.pem",
        "ssl_keyfile": f"{folder}/me.key",
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": False,
    }
    for none in ("none", "CERT_NONE"):
        tls = parse_address(f"rediss://h?ssl_cert_reqs={none}").tls
        assert tls == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}


def test_sentinels_share_one_account_and_one_database() -> None:
    address = parse_address(SENTINELS)
    assert address.hosts == (("one", 26379), ("two", 26379), ("three", 26381))
    assert address.account == {"username": "ann", "password": "p@ss", "db": 2}
    assert parse_address(f"{SENTINELS}?ssl_cert_reqs=required").tls
    assert redacted(SENTINELS + ";sentinel://bob:secret@four") == (
        "sentinel://ann:***@one:26379/2;sentinel://two;sentinel://three:26381;"
        "sentinel://bob:***@four"
    )


REFUSED = {
    "http://h": "must begin with",
    "": "must begin with",
    "redis+socket:///run/redis": "must begin with",
    "redis://h;sentinel://h": "must begin with",
    "redis://h;redis://i": "more than one host",
    "redis://h/first": "'first' is not a number",
    "redis://h:port/0": "port is not a number",
    "sentinel://h/1;sentinel://i/2": "different databases",
    "redis://h?ssl_cert_reqs=none": "is for rediss",
    "rediss://h?socket_timeout=3": "socket_timeout is not an option",
    "rediss://h?ssl_cert_reqs=maybe": "choose from required, optional, none",
    "rediss://h?ssl_check_hostname=maybe": "choose true or false",
    "rediss://h?ssl_ca_certs=/nowhere": "ssl_ca_certs=/nowhere cannot be used",
    "rediss://h?ssl_ca_certs={file}": "cannot be used",
    "rediss://h?ssl_certfile={file}": "cannot be used",
    "rediss://h?ssl_keyfile={file}": "needs ssl_certfile",
}


@at_once("url", REFUSED)
def test_what_is_wrong_with_a_url_is_said_without_its_password(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a certificate")
    told = url.format(file=tmp_path / "file").replace("://h", "://ann:secret@h", 1)
    with pytest.raises(InvalidSetting, match="CELERY_BROKER_URL") as caught:
        parse_address(told)
    assert REFUSED[url] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_celery_is_given_no_password_where_it_would_show_it() -> None:
    settings = load_settings(
        broker_url=SENTINELS,
        key_prefix="team-a",
        sentinel_master="jobs",
        sentinel_password="shibboleth",
        result_backend=SENTINELS,
    )
    conf = broker_conf(settings)
    assert conf.pop("broker_password") == "p@ss"  # Celery hides it by its name
    assert (
        conf["broker_read_url"]
        == "sentinel://one:26379;sentinel://two:26379;sentinel://three:26381"
    )
    assert conf["broker_vhost"] == "2"
    assert conf["broker_transport_options"] == transport_options(settings) | {
        "client_name": connection_name("worker")
    }
    assert conf["broker_transport_options"]["master_name"] == "jobs"
    assert conf["broker_transport_options"]["global_keyprefix"] == "team-a:celery:"
    assert "p@ss" not in repr(conf)
    assert "shibboleth" not in repr(conf)


def test_celery_never_gives_up_connecting() -> None:
    assert broker_conf(load_settings())["broker_connection_max_retries"] is None


def test_celerys_backend_is_given_all_of_the_url() -> None:
    url, conf = backend_conf(load_settings(result_backend="rediss://ann:pw@h:6380/1"))
    assert url == "rediss://ann:pw@h:6380/1"
    assert conf["redis_backend_use_ssl"]["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert backend_conf(load_settings(result_backend="rpc://")) == (
        "rpc://",
        {"result_backend_transport_options": {}},
    )
    assert backend_conf(load_settings(result_backend="")) == (None, {})
    with pytest.raises(InvalidSetting, match="CELERY_RESULT_BACKEND"):
        backend_conf(load_settings(result_backend="rediss://h?no=option"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    server = start_valkey(
        tmp_path / "valkey",
        (port := free_port()),
        binary=BINARY,
        more=["cluster-enabled yes", f"cluster-port {free_port()}"],
    )
    yield valkey_url(port)
    server.stop(10)


def test_a_server_in_cluster_mode_is_refused_by_name(cluster: str) -> None:
    settings = load_settings(broker_url=cluster)
    with pytest.raises(InvalidSetting, match="cluster mode"):
        check_server(settings)
    with pytest.raises(InvalidSetting, match="cluster mode"), broker_errors(settings):
        connect(settings).get("any")
    ledger = Ledger(settings)
    with pytest.raises(InvalidSetting, match="cluster mode"):
        ledger.submit(Submission(new_job_id(), Task("txt2img"), "{}", ""))
    ledger.close()


def names_of(server: Any) -> list[str]:
    return [name for client in server.client_list() if (name := client["name"])]


async def names_on_a_loop(settings: Settings, server: Any) -> list[str]:
    runner = AsyncRunner(settings, what="background")
    await asyncio.gather(*(runner.run(JobLedger(settings).now()) for _ in range(20)))
    found = names_of(server)
    await runner.close()
    return found


def test_connections_say_what_they_are_for_and_on_which_machine(
    settings: Settings, admin: Any
) -> None:
    host = socket.gethostname()
    with Client(settings) as client, CommandClient(settings) as command:
        for one in (client, command):
            one.queues()
        assert {f"crossmodal:client:{host}", f"crossmodal:cli:{host}"} <= set(names_of(admin))
    found = asyncio.run(names_on_a_loop(settings, admin))
    assert found.count(f"crossmodal:background:{host}") == 1  # whatever is asked at once


def test_a_server_that_is_away_may_come_later() -> None:
    check_server(load_settings(broker_url=valkey_url(free_port())))
