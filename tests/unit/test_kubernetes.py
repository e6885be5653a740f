"""Kubernetes manifests: they render, are valid, ask for no rights, and say what we understand."""

import json
import re
import stat
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import typer

from crossmodal.cli import commands, load
from crossmodal.errors import InvalidSetting
from crossmodal.settings import Settings, load_settings
from tests.at_once import at_once
from tests.manifests import (
    KUBERNETES,
    OVERLAYS,
    all_of,
    container,
    containers,
    copy_to,
    environment,
    fill_in,
    kustomize,
    name_of,
    need_kubectl,
    one,
    rendered,
    selected,
    settings_map,
    template_of,
    templates,
)
from worker.supervisor import COLD_STOP_S, HOST_STOP_S, make_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    path.stem: json.loads(path.read_text())
    for path in (ROOT / "tests" / "data" / "schemas").glob("*.json")
}
VERSIONS = ("1.29", "1.37")  # of Kubernetes: the oldest that is promised, and the newest known
# Not ours: what Python and the container's runtime read, and what a URL is made of.
FOREIGN = {"HOME", "NVIDIA_VISIBLE_DEVICES", "REDIS_PASSWORD"}
MADE_BY_HAND = {"crossmodal-metrics", "crossmodal-tls"}  # Secrets: docs/kubernetes.md says how

# It reads a megabyte of definitions anew for every object.
READ_ONCE = cache(kubernetes_validate.utils.schema_contents)

each_overlay = at_once("overlay", OVERLAYS)


@pytest.fixture(autouse=True)
def _schemas_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", READ_ONCE)


def check_schema(thing: dict[str, Any], version: str) -> None:
    if thing["kind"] in SCHEMAS:
        jsonschema.validate(thing, SCHEMAS[thing["kind"]])
    else:
        kubernetes_validate.validate(thing, version, strict=True)


# -- rendering --------------------------------------------------------------------------


@at_once("version", VERSIONS)
def test_every_object_is_what_its_schema_asks_for(version: str) -> None:
    distinct = {json.dumps(thing, sort_keys=True) for o in OVERLAYS for thing in rendered(o)}
    for text in distinct:
        check_schema(json.loads(text), version)


@at_once("kind", ["ScaledObject", "PodMonitor", "Deployment", "NetworkPolicy"])
def test_a_field_that_does_not_exist_is_an_error(kind: str) -> None:
    thing = json.loads(json.dumps(all_of("gpu", kind)[0]))
    check_schema(thing, VERSIONS[1])
    thing["spec"]["replicaz"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_schema(thing, VERSIONS[1])


@each_overlay
def test_nothing_is_rendered_without_secrets(overlay: str, tmp_path: Path) -> None:
    need_kubectl()
    root = copy_to(tmp_path / overlay)
    assert kustomize(root, overlay).returncode != 0
    fill_in(root)
    assert kustomize(root, overlay).returncode == 0


def test_examples_have_no_value_for_any_secret() -> None:
    examples = list(KUBERNETES.glob("overlays/*/*.env.example"))
    assert len(examples) >= len(OVERLAYS)
    for example in examples:
        assert re.findall(r"^\w+=(.+)$", example.read_text(), re.MULTILINE) == [], example
        tried = ["git", "check-ignore", "--quiet", str(example.with_suffix(""))]
        assert subprocess.run(tried, cwd=ROOT, check=False).returncode == 0, example


@each_overlay
def test_what_is_referred_to_is_there(overlay: str) -> None:
    known = {
        x["metadata"]["name"] for x in all_of(overlay, "Secret", "ConfigMap", "ServiceAccount")
    }
    text = json.dumps([x for x in rendered(overlay) if x["kind"] not in ("Secret", "ConfigMap")])
    keys = r"secretKeyRef|configMapKeyRef|configMapRef|secretRef|configMap|credentials"
    named = {n for _, n in re.findall(rf'"({keys})": {{[^{{}}]*?"name": "([^"]+)"', text)}
    named |= set(re.findall(r'"(?:secretName|serviceAccountName)": "([^"]+)"', text))
    for authentication in all_of(overlay, "TriggerAuthentication"):
        named |= {ref["name"] for ref in authentication["spec"]["secretTargetRef"]}
    assert {"crossmodal"} < named
    assert named - known <= MADE_BY_HAND


# -- Pods -------------------------------------------------------------------------------


@each_overlay
def test_pods_have_no_rights(overlay: str) -> None:
    for name, template in templates(overlay).items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert all(not {"hostPath"} & set(volume) for volume in spec.get("volumes", [])), name
    for name, one_container in containers(overlay):
        assert one_container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


@each_overlay
def test_images_have_a_name_in_a_registry_and_a_version(overlay: str) -> None:
    for name, one_container in containers(overlay):
        image = one_container["image"]
        assert re.fullmatch(r"[\w.-]+\.[\w.-]+/[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})", image), (
            name
        )
        assert not image.endswith(":latest"), name


def test_compose_and_kubernetes_run_the_same_redis() -> None:
    compose = (ROOT / "docker" / "compose.yaml").read_text()
    assert f"{{REDIS_IMAGE:-{container('cpu', 'redis')['image']}}}" in compose


@each_overlay
def test_every_container_says_what_memory_it_needs_and_may_have(overlay: str) -> None:
    for name, one_container in containers(overlay):
        resources = one_container["resources"]
        assert bytes_of(resources["requests"]["memory"]) <= bytes_of(
            resources["limits"]["memory"]
        ), name
        assert "cpu" in resources["requests"], name


def bytes_of(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([MG]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * (2**20 if unit == "Mi" else 2**30)


@at_once("overlay", ["gpu", "external-redis"])
def test_a_gpu_worker_has_one_gpu_and_works_on_nothing_else(overlay: str) -> None:
    worker = container(overlay, "worker")
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["args"][1:3] == ["--devices", "cuda:0"]


@each_overlay
@at_once("name", ["worker", "background"])
def test_a_pod_may_end_for_longer_than_a_drain_takes(overlay: str, name: str) -> None:
    drain_s = float(settings_map(overlay)["CROSSMODAL_DRAIN_S"])
    spec = templates(overlay)[f"Deployment/crossmodal-{name}"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > drain_s + COLD_STOP_S + HOST_STOP_S + 5


@each_overlay
def test_what_containers_and_probes_run_are_commands_of_ours(overlay: str) -> None:
    ran = []
    for _, one_container in containers(overlay):
        if one_container["name"] == "redis":
            continue
        assert "command" not in one_container  # the image's own: crossmodal
        ran.append(one_container["args"])
        probes = [one_container[p] for p in one_container if p.endswith("Probe")]
        for [program, *args] in [p["exec"]["command"] for p in probes if "exec" in p]:
            assert program == "crossmodal"
            ran.append(args)
    assert {name for name, *_ in ran} == {"gateway", "background", "worker", "gc", "health"}
    for name, *args in ran:
        assert name in commands()
        command: typer.core.TyperCommand = load(name)
        command.make_context(name, list(args)).close()


@each_overlay
def test_only_what_has_models_is_asked_whether_it_is_ready(overlay: str) -> None:
    """`health --ready` wants a model host: a Pod without one would never be."""
    asking = {c["name"] for _, c in containers(overlay) if "--ready" in json.dumps(c)}
    assert asking == {"worker"}


@each_overlay
def test_probes_of_the_gateway_are_routes_of_it(overlay: str) -> None:
    from producer.gateway.routes.operations import probes

    routes = {getattr(route, "path", None) for route in probes.routes}
    gateway = container(overlay, "gateway")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert gateway[probe]["httpGet"]["path"] in routes
        assert gateway[probe]["httpGet"]["port"] in {port["name"] for port in gateway["ports"]}


def known_variables() -> set[str]:
    """What the environment may say to this software."""
    ours = {
        str(field.validation_alias or f"CROSSMODAL_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    options = {p.envvar for p in load("gateway").params if p.envvar}
    return ours | {str(name) for name in options}


@each_overlay
def test_every_variable_is_a_setting(overlay: str) -> None:
    known = known_variables() | FOREIGN
    for name, one_container in containers(overlay):
        found = {v for v in environment(overlay, one_container) if not v.startswith("AWS_")}
        assert found <= known, name


@each_overlay
def test_settings_can_be_read_and_are_the_same_for_all(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, one_container in containers(overlay):
        if one_container["name"] == "redis":
            continue
        with monkeypatch.context() as patched:
            for variable, value in environment(overlay, one_container).items():
                patched.setenv(variable, value)
            settings = load_settings()
        assert settings.storage_url.startswith("s3://"), name
        broker = settings.broker_url.get_secret_value()
        secure = overlay == "external-redis"
        assert broker.startswith("rediss://" if secure else "redis://:ab"), name


def test_every_setting_in_the_map_is_documented() -> None:
    documented = set(
        re.findall(r"\b[A-Z][A-Z_0-9]+\b", (ROOT / "docs" / "settings.md").read_text())
    )
    keys = {key for overlay in OVERLAYS for key in settings_map(overlay)}
    assert {key for key in keys if not key.startswith("AWS_")} <= documented


@each_overlay
def test_no_secret_is_in_a_map(overlay: str) -> None:
    for thing in all_of(overlay, "ConfigMap"):
        assert not re.search(
            r"password=|://[^/\s]*:[^/\s]*@|SECRET|^requirepass", json.dumps(thing["data"])
        ), name_of(thing)


def test_a_worker_can_make_its_folder_where_a_mount_is_open_to_all(short_path: Path) -> None:
    """An emptyDir belongs to root and anybody may write to it, which the worker refuses."""
    run_dir = Path(environment("cpu", container("cpu", "worker"))["CROSSMODAL_RUN_DIR"])
    mounts = [Path(m["mountPath"]) for m in container("cpu", "worker")["volumeMounts"]]
    [mount] = [m for m in mounts if run_dir.is_relative_to(m)]
    here = short_path / "mount"
    here.mkdir()
    here.chmod(0o2777)
    with pytest.raises(InvalidSetting, match="others may write"):
        make_folder(here / "run")
    folder = make_folder(here / run_dir.relative_to(mount))
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0


# -- who selects whom -------------------------------------------------------------------


@each_overlay
def test_every_selector_finds_pods(overlay: str) -> None:
    for thing in all_of(overlay, "Deployment", "StatefulSet"):
        labels = template_of(thing)["metadata"]["labels"]
        assert thing["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for thing in all_of(overlay, "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        key = "podSelector" if thing["kind"] == "NetworkPolicy" else "selector"
        assert selected(overlay, thing["spec"][key]), name_of(thing)
    for service in all_of(overlay, "Service"):
        [(_, template)] = selected(overlay, {"matchLabels": service["spec"]["selector"]}).items()
        ports = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@each_overlay
def test_no_two_controllers_share_pods(overlay: str) -> None:
    for thing in all_of(overlay, "Deployment", "StatefulSet"):
        assert list(selected(overlay, thing["spec"]["selector"])) == [name_of(thing)]


@at_once("overlay", ["gpu", "hpa", "external-redis"])
def test_prometheus_scrapes_ports_that_are_there_under_the_names_that_alerts_know(
    overlay: str,
) -> None:
    alerts = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text()
    jobs = set()
    for monitor in all_of(overlay, "PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        [(_, template)] = selected(overlay, monitor["spec"]["selector"]).items()
        [pod_container] = template["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in pod_container["ports"]}
        [relabeling] = endpoint["relabelings"]
        jobs.add(relabeling["replacement"])
    assert set(re.findall(r'job="(crossmodal-\w+)"', alerts)) == jobs


def test_the_worker_serves_figures_where_they_are_asked_for() -> None:
    worker = container("cpu", "worker")
    env = environment("cpu", worker)
    assert [p["containerPort"] for p in worker["ports"]] == [int(env["CROSSMODAL_METRICS_PORT"])]
    gateway = container("cpu", "gateway")
    port = environment("cpu", gateway)["CROSSMODAL_GATEWAY_PORT"]
    assert [p["containerPort"] for p in gateway["ports"]] == [int(port)]


@each_overlay
def test_collections_do_not_overlap(overlay: str) -> None:
    assert one(overlay, "CronJob", "crossmodal-gc")["spec"]["concurrencyPolicy"] == "Forbid"


def test_there_is_an_overlay_for_each_way_that_the_manual_names() -> None:
    manual = (ROOT / "docs" / "kubernetes.md").read_text()
    assert sorted(set(re.findall(r"`overlays/([\w-]+)`", manual))) == OVERLAYS
    named = set(re.findall(r"`components/([\w-]+)`", manual))
    assert named == {p.name for p in (KUBERNETES / "components").iterdir()}
