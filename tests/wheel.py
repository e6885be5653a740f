"""A check of the wheel alone, in empty environments outside this tree: make wheel-test.

    python -m tests.wheel dist/crossmodal_jobs-*.whl [--light]

First without extras, as in an app: it submits, and has no torch. Then with the extra `all`, which
installs PyTorch and takes 6 GB in the temporary folder: the demo, and the gateway with its page.
Of this tree it uses only the wheel, and constraints.txt to install.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

from crossmodal.cli import EXTRAS
from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port, start_valkey, valkey_url
from crossmodal.processes import Child, wait_until

ROOT = Path(__file__).parents[1]
START_S = 60.0
PROMPT = "a large red circle on a white background"
PAGE = (
    "/",
    "/page/page.js",
    "/page/base.css",
    "/page/icon.svg",
    "/openapi.json",
    "/readyz",
    "/docs",
    "/page/docs.js",
    "/docs/assets/swagger-ui-bundle.js",
    "/docs/assets/swagger-ui.css",
)


class Installed:
    """A virtual environment with the wheel, and a working folder, both outside this tree."""

    def __init__(self, folder: Path, wheel: Path, extras: str) -> None:
        self.bin = folder / "venv" / "bin"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        run([sys.executable, "-m", "venv", str(folder / "venv")])
        began = time.monotonic()
        run(
            [
                str(self.bin / "pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-c",
                str(ROOT / "constraints.txt"),
                f"{wheel.resolve()}{extras}",
            ]
        )
        say(f"installed crossmodal-jobs{extras} in {time.monotonic() - began:.0f} s")

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of its programs, with nothing inherited from this script."""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def python(self, program: str) -> str:
        return self._run([str(self.bin / "python"), "-c", program], {})

    def crossmodal(self, *args: str, **env: str) -> str:
        return self._run([str(self.bin / "crossmodal"), *args], env)

    def _run(self, argv: list[str], env: Mapping[str, str]) -> str:
        return run(argv, cwd=self.home, env=self.environment(env))


def run(argv: list[str], **options: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}\nended with {done.returncode}\n{done.stderr[-3_000:]}")
    return str(done.stdout)


def say(text: str) -> None:
    print(text, flush=True)


def check(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"NOT MET: {what}")
    say(f"ok: {what}")


def check_origin(installed: Installed) -> None:
    program = "import crossmodal, producer, worker; print(crossmodal.__file__, producer.__file__)"
    places = installed.python(program).split()
    within = str(installed.bin.parent)
    check(all(p.startswith(within) for p in places), "it is imported from its own environment")
    check(installed.crossmodal("--version").startswith("crossmodal "), "crossmodal --version")


def check_light(folder: Path, wheel: Path) -> None:
    """Check the wheel without extras: it submits and queries, and has no torch."""
    installed = Installed(folder, wheel, "")
    check_origin(installed)
    found = installed.python(
        "import producer, sys; from importlib.util import find_spec as find; "
        "print([n for n in ('torch', 'numpy', 'PIL', 'cv2', 'fastapi', 'flower') if find(n)])"
    )
    check(found.strip() == "[]", "no torch, numpy, Pillow, OpenCV, FastAPI or Flower is there")
    for command, extra in EXTRAS.items():
        check(refuses(installed, command, extra), f"crossmodal {command} asks for [{extra}]")
    url = valkey_url(port := free_port(), "submits")
    env = {"CELERY_BROKER_URL": url, "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri()}
    with Stack({}) as stack:
        stack.add(start_valkey(folder / "valkey", port, "submits"), 10)
        told = installed.crossmodal("txt2img", PROMPT, "--no-wait", "--json", **env)
        [job] = json.loads(told)
        status = json.loads(installed.crossmodal("status", job["id"], "--json", **env))
        check(status["state"] == "queued", f"job {job['id']} was submitted, and is queued")


def refuses(installed: Installed, command: str, extra: str) -> bool:
    """Whether a command exits with status 2 and only names the missing extra."""
    done = subprocess.run(
        [str(installed.bin / "crossmodal"), command],
        cwd=installed.home,
        env=installed.environment({}),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    said = " ".join(done.stderr.split())
    told = said.startswith("error extra_missing ") and said.endswith(f"'crossmodal-jobs[{extra}]'")
    return done.returncode == 2 and told and not done.stdout


def check_all(folder: Path, wheel: Path) -> None:
    """Check the wheel with all extras: the demo, and a gateway that serves its page."""
    installed = Installed(folder, wheel, "[all]")
    check_origin(installed)
    told = json.loads(installed.crossmodal("demo", "--devices", "cpu", "--json"))
    check(len(told["jobs"]) == 16, f"crossmodal demo, in {told['total_s']:.1f} s")
    check(all(job["caption"] for job in told["jobs"]), "all of its pictures were captioned")
    check_gateway(folder, installed)


def check_gateway(folder: Path, installed: Installed) -> None:
    port, queue = free_port(), free_port()
    env = installed.environment(
        {
            "CELERY_BROKER_URL": valkey_url(queue),
            "CROSSMODAL_STORAGE_URL": (folder / "storage").as_uri(),
            "CROSSMODAL_GATEWAY_PORT": str(port),
        }
    )
    with (folder / "gateway.log").open("wb") as log, Stack({}, log) as stack:
        stack.add(start_valkey(folder / "valkey", queue), 10)
        argv = [
            "env",
            "-i",
            *(f"{name}={value}" for name, value in env.items()),
            str(installed.bin / "crossmodal"),
            "gateway",
        ]
        gateway = stack.start("gateway", argv, 20)
        for path in PAGE:
            check(answers(gateway, port, path), f"the gateway serves {path}")


def answers(gateway: Child, port: int, path: str) -> bool:
    def asked() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status == 200 and bool(answer.read())
        except OSError:
            return False

    return wait_until(lambda: asked() or not gateway.is_alive, START_S, 0.2) and asked()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--light", action="store_true", help="only as an app has it: no PyTorch")
    args = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="crossmodal-wheel-") as name:
        check_light(Path(name) / "light", args.wheel)
        if not args.light:
            check_all(Path(name) / "all", args.wheel)


if __name__ == "__main__":
    main()
