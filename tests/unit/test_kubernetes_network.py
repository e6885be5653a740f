"""Who may talk to whom in the cluster; and a real server, started as the Redis Pod starts it."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from crossmodal.local.valkey import free_port, server_binary
from tests.at_once import at_once
from tests.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifest,
    all_of,
    container,
    environment,
    matches,
    one,
    rendered,
    selected,
    templates,
)
from tests.unit.test_kubernetes import VERSIONS, bytes_of, check_schema
from tests.waiting import until

pytestmark = pytest.mark.slow

each_overlay = at_once("overlay", OVERLAYS)
PASSWORD = "0123456789abcdef" * 2
METADATA = ("169.254.169.254", "169.254.169.252", "fd00:ec2::254")


def policies(overlay: str, direction: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Each rule of a direction, with its policy."""
    for policy in all_of(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get(direction, []):
            yield policy, rule


def may_reach(overlay: str, client: str, server: str, port: str) -> bool:
    """Whether policies let Pods of one controller reach a port of another's, on both sides."""
    sender, receiver = (templates(overlay)[name]["metadata"]["labels"] for name in (client, server))

    def is_let(direction: str, side: str, this: dict[str, str], peer: dict[str, str]) -> bool:
        return any(
            matches(policy["spec"]["podSelector"], this)
            and {"protocol": "TCP", "port": port} in rule.get("ports", [])
            and any(
                "podSelector" in p
                and "namespaceSelector" not in p
                and matches(p["podSelector"], peer)
                for p in rule[side]
            )
            for policy, rule in policies(overlay, direction)
        )

    return is_let("egress", "to", sender, receiver) and is_let("ingress", "from", receiver, sender)


@each_overlay
def test_what_is_not_named_is_denied(overlay: str) -> None:
    [deny] = [
        p
        for p in all_of(overlay, "NetworkPolicy")
        if p["spec"]["podSelector"] == {} and "egress" not in p["spec"]
    ]
    assert sorted(deny["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    assert "ingress" not in deny["spec"]


@each_overlay
def test_every_rule_names_whom_and_which_port(overlay: str) -> None:
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for policy, rule in policies(overlay, direction):
            name = policy["metadata"]["name"]
            assert rule[side], name
            if name == "internet":  # a receiver of webhooks may be at any port
                continue
            for port in rule["ports"]:
                if isinstance(port["port"], str):
                    peers = rule[side] if direction == "egress" else [policy["spec"]]
                    found = [t for p in peers for t in selected(overlay, p["podSelector"]).values()]
                    names = {
                        p["name"]
                        for t in found
                        for c in t["spec"]["containers"]
                        for p in c.get("ports", [])
                    }
                    assert port["port"] in names, name


@each_overlay
def test_peers_of_the_same_namespace_are_pods_that_there_are(overlay: str) -> None:
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for policy, rule in policies(overlay, direction):
            for peer in rule[side]:
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    assert selected(overlay, peer["podSelector"]), policy["metadata"]["name"]


@each_overlay
def test_whoever_has_the_brokers_url_may_reach_it_and_nobody_else(overlay: str) -> None:
    for name, template in templates(overlay).items():
        [pod] = template["spec"]["containers"]
        has_url = "CELERY_BROKER_URL" in environment(overlay, pod)
        assert has_url == (template["metadata"]["labels"].get("crossmodal/redis") == "client"), name
        if overlay != "external-redis":
            redis = "StatefulSet/crossmodal-redis"
            assert may_reach(overlay, name, redis, "redis") == has_url, name


@each_overlay
def test_whoever_has_the_stores_credentials_may_reach_it_and_nobody_else(overlay: str) -> None:
    for name, template in templates(overlay).items():
        [pod] = template["spec"]["containers"]
        has = any("secretRef" in source for source in pod.get("envFrom", []))
        assert has == (template["metadata"]["labels"].get("crossmodal/store") == "client"), name


def lets_in(rule: Manifest, address: str) -> bool:
    """Whether a rule's blocks have an address."""
    wanted = ip_address(address)
    return any(
        wanted in ip_network(block["cidr"])
        and not any(wanted in ip_network(left_out) for left_out in block.get("except", []))
        for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer)
    )


@each_overlay
@at_once("address", METADATA)
def test_nobody_may_ask_the_clouds_metadata_service(overlay: str, address: str) -> None:
    for policy, rule in policies(overlay, "egress"):
        assert not lets_in(rule, address), policy["metadata"]["name"]


def test_the_manual_lets_the_stores_clients_ask_it_on_gke() -> None:
    manual = (KUBERNETES.parents[1] / "docs" / "kubernetes.md").read_text()
    [text] = re.findall(r"<!-- workload identity -->\n```yaml\n(.*?)```", manual, re.DOTALL)
    policy = yaml.safe_load(text)
    for version in VERSIONS:
        check_schema(policy, version)
    assert selected("gpu", policy["spec"]["podSelector"]) == selected(
        "gpu", one("gpu", "NetworkPolicy", "store")["spec"]["podSelector"]
    )
    for address in ("169.254.169.252", "169.254.169.254"):
        assert any(lets_in(rule, address) for rule in policy["spec"]["egress"])


@each_overlay
def test_who_may_go_anywhere_may_by_both_families(overlay: str) -> None:
    for policy, rule in policies(overlay, "egress"):
        assert lets_in(rule, "198.51.100.1") == lets_in(rule, "2001:db8::1"), policy["metadata"][
            "name"
        ]


@each_overlay
def test_names_are_asked_of_a_cache_on_the_node_too(overlay: str) -> None:
    [rule] = one(overlay, "NetworkPolicy", "dns")["spec"]["egress"]
    assert lets_in(rule, "169.254.20.10")
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
    }


@each_overlay
def test_only_the_gateway_is_reached_from_outside(overlay: str) -> None:
    for service in all_of(overlay, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        assert "externalIPs" not in service["spec"]
    for ingress in all_of(overlay, "Ingress"):
        assert set(re.findall(r"'service': {'name': '([^']+)'", str(ingress))) == {
            "crossmodal-gateway"
        }
    for policy, rule in policies(overlay, "ingress"):
        if selected(overlay, policy["spec"]["podSelector"]).keys() & {
            "StatefulSet/crossmodal-redis"
        }:
            assert all("podSelector" in peer for peer in rule["from"])
    assert not any(thing["kind"] == "Ingress" for thing in rendered("cpu"))


# -- the Redis Pod ----------------------------------------------------------------------


@contextmanager
def redis_as_in_the_pod(folder: Path, password: str) -> Iterator["tuple[Any, int]"]:
    """The Pod's own start command and configuration, with its folders and port put elsewhere."""
    port = free_port()
    [config] = [
        c["data"]["redis.conf"]
        for c in all_of("cpu", "ConfigMap")
        if c["metadata"]["name"].startswith("crossmodal-redis")
    ]
    command = list(container("cpu", "redis")["command"])
    folders = {name: folder / name for name in ("data", "run", "etc", "bin")}
    for path in folders.values():
        path.mkdir(parents=True)
    (folders["bin"] / "redis-server").symlink_to(server_binary())
    moved = {"/data": folders["data"], "/run/redis": folders["run"], "/etc/redis": folders["etc"]}
    for old, new in moved.items():
        command[-1] = command[-1].replace(old, str(new))
        config = config.replace(old, str(new))
    config = config.replace("port 6379", f"port {port}").replace("bind * -::*", "bind 127.0.0.1")
    (folders["etc"] / "redis.conf").write_text(config)
    env = {"PATH": f"{folders['bin']}:{os.environ['PATH']}", "REDIS_PASSWORD": password}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process, port
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_redis_starts_as_its_pod_starts_it_and_keeps_what_it_is_given(tmp_path: Path) -> None:
    with redis_as_in_the_pod(tmp_path, PASSWORD) as (process, port):
        client: Any = Redis(port=port, password=PASSWORD, decode_responses=True)

        def answers() -> bool:
            assert process.poll() is None, process.communicate()
            try:
                return bool(client.ping())
            except RedisError:
                return False

        until(answers)
        with pytest.raises(AuthenticationError):
            Redis(port=port).ping()
        settings = client.config_get("*")
        assert (settings["appendonly"], settings["maxmemory-policy"]) == ("yes", "noeviction")
        assert settings["save"] == ""
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        kept = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert PASSWORD.encode() not in arguments + kept
        assert (tmp_path / "run" / "password.conf").stat().st_mode & 0o077 == 0
        limits = container("cpu", "redis")["resources"]["limits"]
        assert bytes_of(limits["memory"]) >= 2 * int(settings["maxmemory"])
        client.close()


@at_once("password", ["", "secret", "a" * 31])
def test_redis_refuses_a_password_that_may_be_guessed(tmp_path: Path, password: str) -> None:
    with redis_as_in_the_pod(tmp_path / str(len(password)), password) as (process, _):
        assert process.wait(20) == 1
        assert b"openssl rand" in process.stderr.read()


def test_the_volume_outlives_the_statefulset() -> None:
    spec = one("cpu", "StatefulSet", "crossmodal-redis")["spec"]
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert one("cpu", "Service", "crossmodal-redis")["spec"]["clusterIP"] == "None"
