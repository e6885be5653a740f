"""No secret is where somebody could read it who must not have it: in every place where one looks.

A whole installation runs at level DEBUG with recognizable secrets, does what makes it talk, and is
then searched: `ps`, logs, Flower, remote control, metrics, pages, records, stored files, commands.
"""

import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from celery import Celery

from crossmodal.errors import CrossmodalError
from crossmodal.jobs.connection import connect
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.processes import wait_until
from crossmodal.settings import load_settings
from crossmodal.storage import open_storage
from producer import Client, JobFailed
from tests.at_once import at_once
from tests.commands import run_command
from tests.gateway import Gateway, running_gateway
from tests.waiting import until
from tests.workers import FAKE_WORKER

PROMPT = "a large red circle on a white background"
WAIT_S = 90
BROKER, STORE, SESSION, LOGIN, TRACES, TYPED = (
    f"xyzzy{name}xyzzy" for name in ("broker", "store", "session", "login", "traces", "typed")
)
SECRETS = (BROKER, STORE, SESSION, LOGIN, TRACES, TYPED)


@dataclass(frozen=True)
class Installation:
    """Everything runs; `token` and `signing` are an API key's own secrets."""

    folder: Path
    env: dict[str, str]
    flower: str
    metrics: str
    gateway: Gateway
    token: str
    signing: str
    jobs: list[str]

    @property
    def secrets(self) -> tuple[str, ...]:
        _, _, token = self.token.split("_", 2)  # which may itself have underscores
        return (*SECRETS, token, self.signing.removeprefix("whsec_"))

    def check(self, text: str | bytes, where: str) -> None:
        """Fail where a secret is in `text`, which must not be empty."""
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        assert shown, f"there is nothing in {where}"
        for secret in self.secrets:
            assert secret not in shown, f"{secret} is in {where}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("secrets")
    port, flower, metrics = free_port(), free_port(), free_port()
    url = valkey_url(port, BROKER)
    env = {
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url.replace("/0", "/1"),
        "CROSSMODAL_STORAGE_URL": "s3://secrets/prefix",
        "CROSSMODAL_LOG_LEVEL": "DEBUG",
        "CROSSMODAL_ALLOW_PRIVATE_URLS": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": STORE,
        "AWS_SESSION_TOKEN": SESSION,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": s3_server,
        "FLOWER_BASIC_AUTH": f"me:{LOGIN}",
        "FLOWER_PORT": str(flower),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",  # nobody is there
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={TRACES}",
    }
    urlopen(Request(f"{s3_server}/secrets", method="PUT")).close()
    with (
        pytest.MonkeyPatch.context() as here,
        (folder / "processes.log").open("wb") as log,
        Stack(env, log) as stack,
        Stack(env | {"CROSSMODAL_METRICS_PORT": str(metrics)}, log) as serving,
    ):
        for name, value in env.items():
            here.setenv(name, value)
        stack.add(start_valkey(folder / "valkey", port, BROKER), 10)
        argv = [
            sys.executable,
            *FAKE_WORKER,
            "--concurrency",
            "2",
            "--ready-file",
            str(folder / "ready"),
        ]
        serving.start("worker", argv, 60)
        stack.start_background()
        assert stack.start_flower()
        with Client() as client:
            key, token = client.keys.create("tester", is_operator=True)
            signing = client.keys.webhook_secret(key.id)
        serving.wait_ready(folder / "ready")
        with running_gateway(env, folder, "--keys") as gateway:
            jobs = talk(gateway, token)
            yield Installation(
                folder,
                env,
                f"http://127.0.0.1:{flower}",
                f"http://127.0.0.1:{metrics}/metrics",
                gateway,
                token,
                signing,
                jobs,
            )


def talk(gateway: Gateway, token: str) -> list[str]:
    """Jobs that succeed, fail, are traced and have a webhook; callers who may and who may not."""
    ids = []
    hook = f"http://127.0.0.1:{free_port()}/hook"  # nobody is there
    with gateway.as_key(token) as http, Client() as client:
        for prompt in (PROMPT, "zorg frob"):
            body = {"task": "txt2img", "prompt": prompt, "webhook_url": hook}
            made = http.post("/v1/jobs", json=body)
            assert made.status_code == 202, made.text
            ids.append(made.json()["id"])
        client.job(ids[0]).result(timeout_s=WAIT_S)
        with pytest.raises(JobFailed):
            client.job(ids[1]).result(timeout_s=WAIT_S)
        picture = client.read(client.job(ids[0]).result().images[0])
        made = http.post("/v1/jobs", data={"task": "img2txt"}, files={"file": picture})
        assert made.status_code == 202, made.text
        ids.append(made.json()["id"])
        client.job(ids[2]).result(timeout_s=WAIT_S)
        until(lambda: was_tried(client, ids[0]), WAIT_S, "a try to deliver")
    with gateway.as_key(f"{token[:-1]}x") as stranger:
        assert stranger.get(f"/v1/jobs/{ids[0]}").status_code == 401
    return ids


def was_tried(client: Client, job_id: str) -> bool:
    owner = client.record(job_id).owner
    return any(delivery.tries for delivery in client.webhooks.list(owner, 10))


def test_ps_shows_no_secret(running: Installation) -> None:
    mine = psutil.Process().children(recursive=True)
    assert len(mine) > 10
    for process in mine:
        running.check(" ".join([process.name(), *process.cmdline()]), f"ps of {process.pid}")


def test_logs_show_no_secret(running: Installation) -> None:
    for path in (
        running.folder / "processes.log",
        running.gateway.log,
        running.folder / "valkey" / "valkey.log",
    ):
        running.check(path.read_bytes(), path.name)
    assert b'"debug"' in (running.folder / "processes.log").read_bytes()


def opened(url: str, login: str | None = None) -> bytes:
    import base64

    headers = {}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    with urlopen(Request(url, headers=headers), timeout=30) as answer:
        return bytes(answer.read())


def test_flower_shows_no_secret(running: Installation) -> None:
    me = f"me:{LOGIN}"

    def workers() -> dict[str, object]:
        found = json.loads(opened(f"{running.flower}/api/workers?refresh=1", me))
        return found if any("conf" in about for about in found.values()) else {}

    assert wait_until(lambda: bool(workers()), WAIT_S, 1.0)
    name = next(iter(workers()))
    for page in (
        "workers",
        "tasks",
        "broker",
        "metrics",
        f"worker/{name}",
        "api/workers",
        "api/tasks",
        "api/task/types",
        "api/queues/length",
    ):
        running.check(opened(f"{running.flower}/{page}", me), f"Flower's {page}")


def test_remote_control_shows_no_secret(running: Installation) -> None:
    with Celery(broker=running.env["CELERY_BROKER_URL"]) as app:
        inspect = app.control.inspect(timeout=30, limit=1)
        for said in (inspect.conf(with_defaults=True), inspect.stats(), inspect.report()):
            assert len(said or ()) == 1
            running.check(json.dumps(said, default=repr), "remote control")


def test_the_gateway_and_metrics_show_no_secret(running: Installation) -> None:
    with running.gateway.as_key(running.token) as http:
        for path in (
            "/",
            "/readyz",
            "/livez",
            "/metrics",
            "/openapi.json",
            "/v1/queues",
            "/v1/webhooks/deliveries",
            "/v1/dead-letters",
            "/nowhere",
            *(f"/v1/jobs/{job}" for job in running.jobs),
        ):
            answer = http.get(path)
            assert answer.status_code == (404 if path == "/nowhere" else 200), path
            running.check(answer.text, path)
    running.check(opened(running.metrics), "a worker's metrics")


def test_redis_holds_no_secret_but_what_webhooks_are_signed_with(running: Installation) -> None:
    for number in (0, 1):
        url = running.env["CELERY_BROKER_URL"].replace("/0", f"/{number}")
        with connect(load_settings(broker_url=url), decode=False) as redis:
            names = list(redis.scan_iter())
            dumped = {name: redis.dump(name) or b"" for name in names}
        for name, value in dumped.items():
            text = name + value
            if running.signing.encode() in value:
                assert b":api-key:" in name, name
                text = text.replace(running.signing.encode(), b"")
            running.check(text, f"Redis's {name!r}")


def test_stored_files_hold_no_secret(running: Installation) -> None:
    storage = open_storage(load_settings())
    keys = [blob.key for blob in storage.list("")]
    assert any(key.endswith(".png") for key in keys)
    for key in keys:
        running.check(b"".join(storage.stream(key, 0, 1 << 30)), key)


COMMANDS = (
    ("doctor",),
    ("settings",),
    ("queue",),
    ("keys", "list"),
    ("dead", "list"),
    ("txt2img", PROMPT),
    ("gc",),
)
MISTAKES = {
    "another password": {"CELERY_BROKER_URL": "redis://:{}@127.0.0.1:{port}/0"},
    "no percent-encoding": {"CELERY_BROKER_URL": "redis://:a#{}@127.0.0.1:{port}/0"},
    "a slash": {"CELERY_BROKER_URL": "redis://:a/{}@127.0.0.1:{port}/0"},
    "no host": {"CELERY_BROKER_URL": "redis://:{}"},
    "brackets": {"CELERY_BROKER_URL": "redis://:[{}@127.0.0.1:{port}/0"},
    "another scheme": {"CELERY_BROKER_URL": "amqp://me:{}@127.0.0.1:{port}//"},
    "credentials in the store's URL": {"CROSSMODAL_STORAGE_URL": "s3://somebody:{}@secrets/x"},
    "a scheme that is none": {"CROSSMODAL_STORAGE_URL": "ftp://somebody:{}@secrets/x"},
    "another secret key": {"AWS_SECRET_ACCESS_KEY": "{}", "AWS_ENDPOINT": "http://127.0.0.1:1"},
}


def crossmodal(*args: str, **env: str) -> tuple[int, str]:
    """The exit status of a command, and all that it says."""
    done = run_command(env, *args)
    return done.returncode, done.stdout + done.stderr


@at_once("command", COMMANDS)
def test_commands_show_no_secret(running: Installation, command: tuple[str, ...]) -> None:
    status, said = crossmodal(*command)
    assert status == 0, said
    running.check(said, " ".join(command))


@at_once("mistake", MISTAKES)
def test_errors_show_no_secret(running: Installation, mistake: str) -> None:
    port = running.env["CELERY_BROKER_URL"].rpartition(":")[2].partition("/")[0]
    env = {
        name: value.replace("{port}", port).replace("{}", TYPED)
        for name, value in MISTAKES[mistake].items()
    }
    env["CROSSMODAL_STORAGE_TIMEOUT_S"] = "1"
    status, said = crossmodal("doctor", **env)
    assert status == 1, said
    running.check(said, "doctor")
    with pytest.MonkeyPatch.context() as here:
        for name, value in env.items():
            here.setenv(name, value)
        with pytest.raises(CrossmodalError) as caught, Client() as client:
            client.img2txt(b"\x89PNG\r\n\x1a\n" + bytes(100))
    running.check("".join(traceback.format_exception(caught.value)), "the traceback")
