"""What has to be true of the running installation, in the order in which it is looked at."""

import json
from collections.abc import Callable
from typing import Any

import httpx2

from crossmodal.processes import wait_until
from tests.images.stack import Stack

PNG = b"\x89PNG"
OURS = ("gateway", "background", "worker", "flower")
JOBS = 160  # of sixteen pictures each: more than can be done while the workers are told to stop
JOBS_S = 300.0


def make_keys(stack: Stack) -> None:
    """API keys are made before the first start, by the commands of docs/docker.md."""
    printed = stack.shell("keys")
    stack.app_key = dict(line.split() for line in printed.splitlines() if line.strip())["key"]
    key = stack.folder / "secrets" / "gateway-key"
    assert key.read_text().strip() not in ("", stack.app_key)


def come_up(stack: Stack) -> None:
    """Every service becomes healthy."""
    stack.compose(
        "up", "--detach", "--no-build", "--pull=never", "--wait", *stack.services(), timeout_s=600
    )
    for name in stack.services():
        state = stack.container(name)["State"]
        if name == "bucket":
            assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        else:
            assert state["Health"]["Status"] == "healthy", name


def be_shut(stack: Stack) -> None:
    """Processes are of no privileged user, have no capabilities, and cannot write but to /tmp."""
    for name in OURS:
        container = f"crossmodal-{name}-1"
        read = "import os; print(os.getuid(), open('/proc/1/status').read())"
        uid, _, status = stack.podman.run("exec", container, "python", "-c", read).partition(" ")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert uid == "10001"
        assert fields["Uid"].split() == ["10001"] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        write = "import sys\ntry: open(sys.argv[1], 'w')\nexcept OSError as e: print(e.errno)"
        tried = ("exec", container, "python", "-c", write)
        assert stack.podman.run(*tried, "/venv/x").strip() == "30"  # EROFS
        assert stack.podman.run(*tried, "/tmp/x").strip() == ""


def answer(stack: Stack) -> None:
    """The gateway answers /livez and /readyz, and asks for a key for all else."""
    gateway = stack.url("GATEWAY_PORT")
    assert httpx2.get(f"{gateway}/livez").text == "ok\n"
    assert httpx2.get(f"{gateway}/readyz").text == "ok\n"
    assert httpx2.get(f"{gateway}/v1/queues").status_code == 401
    assert httpx2.get(f"{gateway}/metrics", headers=_key(stack)).status_code == 403


def draw_and_describe(stack: Stack) -> None:
    """A picture is drawn and described by the commands of docs/docker.md; doctor is content."""
    described = json.loads(stack.shell("first job", KEY=stack.app_key))
    picture = (stack.podman.folder / "circle.png").read_bytes()
    assert picture.startswith(PNG)
    text = described["result"]["captions"][0]["text"]
    print(f"  {text}")
    assert "red circle" in text
    said = stack.shell("commands")
    assert "txt2img.bulk" in said, said


def be_watched(stack: Stack) -> None:
    """Prometheus reaches the gateway, with its key, and the worker; Flower wants a login."""
    asked = f"{stack.url('PROMETHEUS_PORT')}/api/v1/query"

    def up() -> dict[str, str]:
        found = httpx2.get(asked, params={"query": "up"}).json()["data"]["result"]
        return {metric["metric"]["job"]: metric["value"][1] for metric in found}

    wanted = {"crossmodal-gateway": "1", "crossmodal-worker": "1", "prometheus": "1"}
    assert wait_until(lambda: up() == wanted, 90, 1), up()
    flower = stack.url("FLOWER_PORT")
    assert httpx2.get(f"{flower}/workers").status_code == 401
    login = (stack.env["FLOWER_USER"], stack.env["FLOWER_PASSWORD"])
    assert httpx2.get(f"{flower}/workers", auth=login).status_code == 200


def scale(stack: Stack) -> None:
    """Another worker comes with --scale, and both serve."""
    stack.compose(
        "up",
        "--detach",
        "--no-build",
        "--pull=never",
        "--no-recreate",
        "--wait",
        "--scale=worker=2",
        "worker",
        timeout_s=600,
    )

    def machines() -> set[str]:
        workers = _get(stack, "/v1/queues").json()["workers"]
        return {worker["name"].partition("@")[2] for worker in workers} if workers else set()

    assert wait_until(lambda: len(machines() - {""}) >= 2, 60, 1), machines()


def drain(stack: Stack) -> None:
    """Workers that are told to stop in the middle of jobs finish these, and end with status 0."""
    body = {"task": "txt2img", "prompt": "a small blue star", "count": 16}
    ids = [_submit(stack, body, wait_s=0)["id"] for _ in range(JOBS)]
    assert wait_until(lambda: "running" in _states(stack, ids), 60, 0.1)
    stack.compose("stop", "worker")
    for number in (1, 2):
        state = stack.container("worker", number)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), state
    left = _states(stack, ids)
    print(f"  {left.count('succeeded')} of {len(ids)} jobs had ended, the others wait")
    assert set(left) <= {"succeeded", "queued"}
    stack.compose("start", "worker")
    assert wait_until(lambda: set(_states(stack, ids)) == {"succeeded"}, JOBS_S, 2)
    assert {job["attempt"] for job in _latest(stack, JOBS)} == {1}, "one was cut off"


def end_well(stack: Stack) -> None:
    """Gateway, background process and Redis end with status 0 when they are told to."""
    stack.compose("stop", "gateway", "background")
    stack.compose("stop", "redis")
    for name in ("gateway", "background", "redis"):
        state = stack.container(name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), (name, state)


ALL: tuple[Callable[[Stack], None], ...] = (
    make_keys,
    come_up,
    be_shut,
    answer,
    draw_and_describe,
    be_watched,
    scale,
    drain,
    end_well,
)


def _key(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.app_key}"}


def _get(stack: Stack, url: str) -> httpx2.Response:
    where = url if url.startswith("http") else stack.url("GATEWAY_PORT") + url
    return httpx2.get(where, headers=_key(stack), timeout=60)


def _latest(stack: Stack, count: int) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = _get(stack, f"/v1/jobs?limit={count}").json()["data"]
    return jobs


def _states(stack: Stack, ids: list[str]) -> list[str]:
    """Of the latest jobs, in one call."""
    states = {job["id"]: job["state"] for job in _latest(stack, len(ids))}
    return [states[job_id] for job_id in ids]


def _submit(stack: Stack, body: dict[str, Any], wait_s: int = 60) -> dict[str, Any]:
    headers = _key(stack) | {"Prefer": f"wait={wait_s}"}
    where = stack.url("GATEWAY_PORT") + "/v1/jobs"
    reply = httpx2.post(where, json=body, headers=headers, timeout=90)
    assert reply.status_code in (200, 202), reply.text
    assert not wait_s or reply.status_code == 200, "not done in time"
    job: dict[str, Any] = json.loads(reply.content)
    return job
