"""TLS with Redis: who is trusted, who is not, and that all who connect read one URL alike."""

import asyncio
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import BrokerNotTrusted, BrokerRefused, BrokerUnavailable
from crossmodal.jobs.acl import Role
from crossmodal.jobs.connection import broker_errors, connect, connect_async
from crossmodal.jobs.names import messages_key
from crossmodal.jobs.server import check_server
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey
from crossmodal.settings import Settings, load_settings
from producer import Client
from tests.celery_app import celery_app
from tests.certificates import Authority
from tests.conftest import need
from tests.servers import PASSWORD, user_lines, user_name
from tests.waiting import until
from tests.workers import environment, running_worker

PREFIX = "tls"
SERVER = shutil.which("redis-server")  # Debian's has TLS


@dataclass(frozen=True)
class TlsServer:
    """A server that takes TLS only, and only with a client certificate."""

    port: int
    folder: Path
    store: str

    def settings(self, options: str, host: str = "localhost", scheme: str = "rediss") -> Settings:
        login = f"{user_name(Role.WORKER, PREFIX)}:{PASSWORD.replace('/', '%2F')}"
        url = f"{scheme}://{login}@{host}:{self.port}/0"
        return load_settings(
            broker_url=f"{url}?{options}" if options else url,
            result_backend=url_of(url, options),
            storage_url=self.store,
            key_prefix=PREFIX,
            connect_timeout_s=3.0,
        )

    @property
    def trusting(self) -> str:
        return f"ssl_ca_certs={self.folder}/ca.pem"

    @property
    def whole(self) -> str:
        """The options of somebody who trusts the server and is trusted by it."""
        folder = self.folder
        return f"{self.trusting}&ssl_certfile={folder}/me.pem&ssl_keyfile={folder}/me.key"


def url_of(url: str, options: str) -> str:
    return f"{url}?{options}" if options else url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    need(SERVER is not None, "a redis-server with TLS")
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.vouch("server", host="localhost")
    authority.vouch("me")
    Authority(folder, "other")
    port, plain = free_port(), free_port()
    lines = [
        f"tls-port {port}",
        f'tls-cert-file "{folder}/server.pem"',
        f'tls-key-file "{folder}/server.key"',
        f'tls-ca-cert-file "{folder}/ca.pem"',
        "tls-auth-clients yes",
        *user_lines(PREFIX, SERVER),
    ]
    child = start_valkey(folder / "data", plain, "admin", more=lines, binary=SERVER)
    yield TlsServer(port, folder, (folder / "storage").as_uri())
    child.stop(10)


def ask(settings: Settings) -> Any:
    with broker_errors(settings), connect(settings) as redis:
        return redis.ping()


def ask_async(settings: Settings) -> Any:
    async def go() -> Any:
        async with connect_async(settings) as redis:
            return await redis.get("tls:here") is None

    with broker_errors(settings):
        return asyncio.run(go())


def ask_by_celery(settings: Settings) -> Any:
    """What Celery's own connection makes of the same settings."""
    with celery_app(settings) as app, app.connection() as connection:
        return connection.channel().client.ping()


@pytest.mark.parametrize("ask", [ask, ask_async, ask_by_celery])
def test_who_trusts_and_is_trusted_is_answered(server: TlsServer, ask: Any) -> None:
    assert ask(server.settings(server.whole))


@pytest.mark.parametrize("ask", [ask, ask_async])
@pytest.mark.parametrize(
    ("options", "host", "reason"),
    [
        ("", "localhost", "CERTIFICATE_VERIFY_FAILED"),
        ("ssl_ca_certs={folder}/other.pem", "localhost", "CERTIFICATE_VERIFY_FAILED"),
        ("{whole}", "127.0.0.1", "IP address mismatch"),
    ],
    ids=["no authority", "another authority", "another name"],
)
def test_who_does_not_trust_or_is_not_trusted_is_told_why(
    server: TlsServer, ask: Any, options: str, host: str, reason: str
) -> None:
    options = options.format(folder=server.folder, whole=server.whole)
    with pytest.raises(BrokerNotTrusted, match=reason) as caught:
        ask(server.settings(options, host))
    assert not caught.value.retryable
    assert PASSWORD.replace("/", "%2F") not in str(caught.value)


def test_who_shows_no_certificate_of_its_own_is_refused(server: TlsServer) -> None:
    # The server refuses after the handshake, and may close before it has said why.
    with pytest.raises(BrokerUnavailable, match=r"certificate required|EOF|closed|reset"):
        ask(server.settings(server.trusting))


def test_celery_does_not_trust_whom_the_ledger_does_not(server: TlsServer) -> None:
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        ask_by_celery(server.settings(""))
    with pytest.raises(Exception, match="IP address mismatch"):
        ask_by_celery(server.settings(server.whole, "127.0.0.1"))


@pytest.mark.parametrize("more", ["ssl_check_hostname=false", "ssl_cert_reqs=none"])
@pytest.mark.parametrize("ask", [ask, ask_by_celery])
def test_what_is_checked_can_be_turned_off(server: TlsServer, ask: Any, more: str) -> None:
    assert ask(server.settings(f"{server.whole}&{more}", "127.0.0.1"))


def test_a_worker_is_not_started_where_it_is_not_let_in(server: TlsServer) -> None:
    with pytest.raises(BrokerNotTrusted):
        check_server(server.settings(""))
    wrong = server.settings(server.whole).broker_url.get_secret_value().replace("tls-worker", "x")
    with pytest.raises(BrokerRefused, match="redis-acl"):
        check_server(
            server.settings(server.whole).model_copy(
                update={"broker_url": load_settings(broker_url=wrong).broker_url}
            )
        )


def test_plain_talk_to_a_server_with_tls_is_an_outage_and_no_riddle(server: TlsServer) -> None:
    with pytest.raises(BrokerUnavailable, match=r"Connection|closed|reset"):
        ask(server.settings("", scheme="redis"))


def test_results_go_to_celerys_backend_over_the_same_url(server: TlsServer) -> None:
    with celery_app(server.settings(server.whole)) as app:
        app.backend.store_result("task-1", {"made": 1}, "SUCCESS")
        # Not by an AsyncResult: it talks to the server once more when it is collected, much later.
        assert app.backend.get_result("task-1") == {"made": 1}
        app.backend.client.close()


def test_a_worker_takes_messages_and_shows_nobody_a_password(
    server: TlsServer, tmp_path: Path
) -> None:
    settings = server.settings(server.whole)
    env = environment(settings)
    with running_worker(env, tmp_path / "worker", 1), Client(settings) as client:
        assert client.txt2img("a red circle", seed=7).result(timeout_s=60).images
        with celery_app(settings) as app:
            asked = app.control.inspect(timeout=10, limit=1)
            told = repr((asked.conf(), asked.stats()))
    assert "broker_transport_options" in told
    assert PASSWORD not in told
    assert PASSWORD.replace("/", "%2F") not in told


def test_flower_reads_the_same_url(server: TlsServer, tmp_path: Path) -> None:
    settings = server.settings(server.whole)
    port = free_port()
    env = {**environment(settings), "FLOWER_PORT": str(port)}
    with connect(settings) as redis:
        for _ in range(3):
            redis.lpush(messages_key(PREFIX, "img2txt.bulk"), "waits")
    with (tmp_path / "log").open("wb") as log, Stack(env, log) as stack:
        assert stack.start_flower()
        page = f"http://127.0.0.1:{port}/broker"
        until(lambda: ("img2txt.bulk", "3") in rows_of(page), 60, "the length of the queue")


def rows_of(page: str) -> list[tuple[str, str]]:
    """The first two cells of each row, once the page is served."""
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return []
    return re.findall(r"<tr[^>]*>\s*<td[^>]*>([^<]*)</td>\s*<td[^>]*>([^<]*)</td>", text)
