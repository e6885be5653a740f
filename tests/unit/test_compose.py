"""The compose files: valid, merged as they should be, shut tight, and no start without secrets."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.at_once import at_once
from tests.compose import DOCKER, compose_command, config, merged
from tests.conftest import need

pytestmark = pytest.mark.slow

SETS = {
    "cpu": ("compose.yaml",),
    "gpu": ("compose.yaml", "compose.gpu.yaml"),
    "gpu-each": ("compose.yaml", "compose.gpu-each.yaml"),
}
EXAMPLE = (DOCKER / ".env.example").read_text()
SECRETS = re.findall(r"^(\w+)=$", EXAMPLE, re.M)
FILLED = {name: f"filled{i}" for i, name in enumerate(SECRETS)}
OURS = "crossmodal-"
ENDS_BY_ITSELF = {"bucket", "cli"}
DRAINED_S = (
    20  # for what does not end in the drain: worker.supervisor's COLD_STOP_S and HOST_STOP_S
)
SECRET_NAME = re.compile(r"PASSWORD|KEY|SECRET|TOKEN|USER")

text = "\n".join(path.read_text() for path in sorted(DOCKER.glob("compose*.yaml")))


@cache
def services(kind: str) -> dict[str, Any]:
    need(compose_command() is not None, "Docker Compose, from version 2 on")
    found: dict[str, Any] = merged(SETS[kind], FILLED)["services"]
    return found


def every_service() -> list[tuple[str, str]]:
    """The services of every set of files, without the help of Compose."""
    names = {kind: set[str]() for kind in SETS}
    for kind, files in SETS.items():
        for file in files:
            names[kind] |= set(yaml.safe_load((DOCKER / file).read_text())["services"])
    return [(kind, name) for kind, found in names.items() for name in sorted(found)]


def seconds(duration: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(\d+)s", duration).groups()  # type: ignore[union-attr]
    return 60 * float(minutes or 0) + float(rest)


# -- variables and secrets --------------------------------------------------------------


@at_once("kind", SETS)
def test_compose_accepts_each_set_of_files(kind: str) -> None:
    assert services(kind)


@at_once("name", SECRETS)
@at_once("given", [None, ""])
def test_nothing_starts_without_a_secret(name: str, given: str | None) -> None:
    need(compose_command() is not None, "Docker Compose, from version 2 on")
    env = {n: v for n, v in FILLED.items() if n != name} | ({} if given is None else {name: given})
    refused = config(SETS["cpu"], env)
    assert refused.returncode != 0
    assert f"required variable {name} is missing a value" in refused.stderr


def test_the_example_names_every_variable_and_no_other() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", text))
    optional = set(re.findall(r"\$\{(\w+):-", text))
    assert not re.findall(r"(?<!\$)\$\{\w+\}", text), "neither required nor with a default"
    assert set(SECRETS) == required
    assert set(re.findall(r"^#(\w+)=", EXAMPLE, re.M)) == optional


def test_the_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^#(\w+)=(.*)$", EXAMPLE, re.M))
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (DOCKER / "compose.yaml").read_text()))
    free = {"PUBLIC_URL", "TORCH_INDEX"}  # shown with something worth setting them to
    assert {n: v for n, v in used.items() if n not in free} == {
        n: v for n, v in shown.items() if n not in free
    }


def test_no_secret_has_a_default() -> None:
    for name in re.findall(r"\$\{(\w+):?-", text):
        assert not SECRET_NAME.search(name), name
    for kind in SETS:
        for service in services(kind).values():
            for name, value in service.get("environment", {}).items():
                if SECRET_NAME.search(name) and name not in ("GF_USERS_ALLOW_SIGN_UP",):
                    assert any(secret in value for secret in FILLED.values()), name


def test_secrets_stay_out_of_git_and_of_command_lines() -> None:
    ignored = (DOCKER.parent / ".gitignore").read_text().splitlines()
    assert {"/docker/.env", "/docker/secrets/"} <= set(ignored)
    for kind in SETS:
        for name, service in services(kind).items():
            words = [*(service.get("command") or []), *(service.get("entrypoint") or [])]
            assert not any(secret in word for secret in FILLED.values() for word in words), name


# -- every service ----------------------------------------------------------------------


@at_once("kind, name", every_service())
def test_a_service_may_do_nothing_that_it_need_not(kind: str, name: str) -> None:
    service = services(kind)[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices"}
    if not service["image"].startswith(OURS):  # the Dockerfiles say the user of these
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    for port in service.get("ports", []):
        assert port["host_ip"] == "127.0.0.1"
    for mount in service.get("volumes", []):
        assert mount["type"] == "volume" or mount["read_only"], mount


@at_once("kind, name", every_service())
def test_a_service_is_bounded_watched_and_pinned(kind: str, name: str) -> None:
    service = services(kind)[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all(re.search(r"size=\d+m", place) for place in service["tmpfs"])
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-gpu)?$", service["image"]), service["image"]
    if name in ENDS_BY_ITSELF:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@at_once("kind, name", every_service())
def test_a_service_waits_for_what_it_needs_to_be_well(kind: str, name: str) -> None:
    everybody = services(kind)
    for needed, how in everybody[name].get("depends_on", {}).items():
        if needed in ENDS_BY_ITSELF:
            assert how["condition"] == "service_completed_successfully"
        else:
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in everybody[needed]


@at_once("kind, name", every_service())
def test_docker_waits_longer_than_a_drain_takes(kind: str, name: str) -> None:
    service = services(kind)[name]
    if name not in ENDS_BY_ITSELF:
        drain_s = float(service.get("environment", {}).get("CROSSMODAL_DRAIN_S", 0))
        assert seconds(service["stop_grace_period"]) >= (drain_s + DRAINED_S if drain_s else 10)
        command = service.get("command") or []
        assert bool(drain_s) == ("worker" in command)


@at_once("kind", SETS)
def test_what_is_mounted_is_there(kind: str) -> None:
    for service in services(kind).values():
        for mount in service.get("volumes", []):
            assert mount["type"] == "volume" or Path(mount["source"]).exists(), mount


# -- who reaches whom -------------------------------------------------------------------


@at_once("kind", SETS)
def test_the_queue_and_the_store_cannot_be_reached_from_outside(kind: str) -> None:
    need(compose_command() is not None, "Docker Compose, from version 2 on")
    everything = merged(SETS[kind], FILLED)
    inside = {name for name, net in everything["networks"].items() if net.get("internal")}
    for name in ("redis", "store"):
        service = everything["services"][name]
        assert "ports" not in service
        assert set(service["networks"]) <= inside
    for name in ("prometheus", "grafana"):
        networks = set(everything["services"][name]["networks"])
        assert not networks & {"queue", "store"}, "they need neither"


def test_prometheus_asks_services_that_it_reaches() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    everybody = services("cpu")
    own = set(everybody["prometheus"]["networks"])
    ports = {
        "gateway": "8000",
        "worker": everybody["worker"]["environment"]["CROSSMODAL_METRICS_PORT"],
    }
    asked = [found for job in scraped["scrape_configs"] for found in job.get("dns_sd_configs", [])]
    assert {name for found in asked for name in found["names"]} == set(ports)
    for found in asked:
        for name in found["names"]:
            assert own & set(everybody[name]["networks"])
            assert str(found["port"]) == ports[name]


def test_grafana_asks_prometheus() -> None:
    provisioned = DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    [source] = yaml.safe_load(provisioned.read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    everybody = services("cpu")
    assert set(everybody["grafana"]["networks"]) & set(everybody["prometheus"]["networks"])


def test_prometheus_shows_the_gateway_an_operators_key() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    [job] = [j for j in scraped["scrape_configs"] if j["job_name"] == "crossmodal-gateway"]
    [secret] = services("cpu")["prometheus"]["secrets"]
    folder = Path("/etc/prometheus")  # of the configuration, from which its paths are read
    assert folder / job["authorization"]["credentials_file"] == Path(secret["target"])


def test_redis_keeps_its_data_in_one_way() -> None:
    said = dict(
        line.split(maxsplit=1)
        for line in (DOCKER / "redis" / "redis.conf").read_text().splitlines()
        if line and not line.startswith("#") and not line.startswith("client-")
    )
    assert (said["appendonly"], said["save"]) == ("yes", '""')


# -- GPUs -------------------------------------------------------------------------------


def devices(service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service["deploy"]["resources"]["reservations"]["devices"]
    return found


def test_one_worker_may_have_all_gpus() -> None:
    worker = services("gpu")["worker"]
    assert devices(worker) == [{"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}]
    assert worker["command"] == ["worker", "--devices", "auto"]
    assert "reservations" not in services("cpu")["worker"]["deploy"]["resources"]


@at_once("kind", ["gpu", "gpu-each"])
def test_an_image_for_gpus_is_not_taken_for_the_one_without_cuda(kind: str) -> None:
    plain = services("cpu")["worker"]
    for name, service in services(kind).items():
        if name.startswith("worker"):
            assert service["image"] == f"{plain['image']}-gpu"
            assert service["build"]["args"]["TORCH_INDEX"] == ""


@at_once("kind", SETS)
def test_a_worker_may_be_given_more_processes(kind: str) -> None:
    need(compose_command() is not None, "Docker Compose, from version 2 on")
    found = merged(SETS[kind], FILLED | {"WORKER_PIDS": "8192"})["services"]
    for name in (name for name in found if name.startswith("worker")):
        assert found[name]["deploy"]["resources"]["limits"]["pids"] == 8_192


def test_each_gpu_may_have_a_worker_of_its_own() -> None:
    everybody = services("gpu-each")
    workers = {n: s for n, s in everybody.items() if n.startswith("worker")}
    taken = [devices(service)[0]["device_ids"] for service in workers.values()]
    assert sorted(taken) == [["0"], ["1"]]
    for name, service in workers.items():
        assert service["command"] == ["worker", "--devices", "cuda:0"]
        assert service["environment"] == everybody["worker"]["environment"]
        aliases = (service["networks"]["watch"] or {}).get("aliases", [])
        assert name == "worker" or aliases == ["worker"]
