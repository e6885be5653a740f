"""The Kubernetes manifests as kustomize renders them, and queries on them."""

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

KUBERNETES = Path(__file__).parents[1] / "docker" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
OLDEST_KUBECTL = (1, 27)  # older ones have a kustomize without components
CONTROLLERS = ("Deployment", "StatefulSet", "CronJob")

Manifest = dict[str, Any]


def need_kubectl() -> None:
    """Skip without a recent kubectl: Debian 12 has none, so CI cannot always install it."""
    if lacking := _lacking():
        pytest.skip(f"needs kubectl {lacking}")


@cache
def _lacking() -> str:
    wanted = ".".join(map(str, OLDEST_KUBECTL))
    if shutil.which("kubectl") is None:
        return wanted
    said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True).stdout
    found = re.search(r"Client Version: v(\d+)\.(\d+)", said)
    is_known = found is not None and (int(found[1]), int(found[2])) >= OLDEST_KUBECTL
    return "" if is_known else f"{wanted}, this is another: {said}"


def kustomize(root: Path, overlay: str) -> "subprocess.CompletedProcess[str]":
    folder = root / "overlays" / overlay
    return subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )


def copy_to(folder: Path) -> Path:
    """Copy the manifests as checked out, without local secrets files."""
    root = folder / "kubernetes"
    shutil.copytree(
        KUBERNETES, root, ignore=shutil.ignore_patterns("redis.env", "store.env", "broker.env")
    )
    return root


def fill_in(root: Path) -> None:
    """Fill in the secrets as the `.example` files tell the operator to."""
    values = {
        "REDIS_PASSWORD": secrets.token_hex(32),
        "CELERY_BROKER_URL": f"rediss://crossmodal:{secrets.token_hex(16)}@redis.example:6380/0",
    }
    for example in root.glob("overlays/*/*.env.example"):
        names = re.findall(r"^(\w+)=", example.read_text(), re.MULTILINE)
        lines = [f"{name}={values.get(name, secrets.token_hex(16))}\n" for name in names]
        example.with_suffix("").write_text("".join(lines))


@cache
def _rendered() -> dict[str, tuple[Manifest, ...]]:
    with TemporaryDirectory() as folder:
        root = copy_to(Path(folder))
        fill_in(root)
        found = {}
        for overlay in OVERLAYS:
            done = kustomize(root, overlay)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""  # kustomize prints deprecations there
            found[overlay] = tuple(yaml.safe_load_all(done.stdout))
        return found


def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return all objects of an overlay."""
    need_kubectl()
    return _rendered()[overlay]


def all_of(overlay: str, *kinds: str) -> list[Manifest]:
    return [thing for thing in rendered(overlay) if thing["kind"] in kinds]


def one(overlay: str, kind: str, name: str) -> Manifest:
    [found] = [x for x in all_of(overlay, kind) if x["metadata"]["name"] == name]
    return found


def name_of(thing: Manifest) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def template_of(controller: Manifest) -> Manifest:
    """Return the Pod template of a controller."""
    spec = controller["spec"]
    found: Manifest = (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]
    return found


def templates(overlay: str) -> dict[str, Manifest]:
    return {name_of(c): template_of(c) for c in all_of(overlay, *CONTROLLERS)}


def containers(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """Yield each container, with the name of its controller."""
    for name, template in templates(overlay).items():
        spec = template["spec"]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            yield name, container


def container(overlay: str, name: str) -> Manifest:
    [found] = [c for _, c in containers(overlay) if c["name"] == name]
    return found


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether labels match a selector; an empty one matches all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "In"  # the others are not used here
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return True


def selected(overlay: str, selector: Manifest) -> dict[str, Manifest]:
    """Return the Pod templates that a selector matches, by controller."""
    found = templates(overlay)
    return {n: t for n, t in found.items() if matches(selector, t["metadata"]["labels"])}


def settings_map(overlay: str) -> dict[str, str]:
    [found] = [
        thing["data"]
        for thing in all_of(overlay, "ConfigMap")
        if thing["metadata"]["name"].startswith("crossmodal-settings")
    ]
    return dict(found)


def environment(overlay: str, container: Manifest) -> dict[str, str]:
    """Return the environment of a container's process, with made-up values for Secrets."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= settings_map(overlay)
        else:
            found |= {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    made_up = {"REDIS_PASSWORD": "ab" * 32, "CELERY_BROKER_URL": "rediss://u:p@redis.example/0"}
    for entry in container.get("env", []):
        value = entry.get("value", made_up.get(entry["name"], ""))
        found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found
