"""Clients that are generated from the OpenAPI document, without a warning, each with real jobs."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import SCRIPTS, World
from tests.clients.environments import python_with, script_for_node

GENERATE_S = 120
PYTHON = "openapi-python-client==0.29.1"
TYPESCRIPT = ("typescript@5.9.3", "@types/node@20.19.43")
HEY_API = ("@hey-api/openapi-ts@0.95.0", *TYPESCRIPT)
OPENAPI_FETCH = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", *TYPESCRIPT)
BYTES = "application/octet-stream"
CONFIG = f'content_type_overrides: {{application/jsonl: {BYTES}, "image/*": {BYTES}}}\n'
HEY_API_CONFIG = """
const output = { path: "made", module: { extension: ".js" } };
export default { input: "openapi.json", output };
"""
OPTIONS = {
    "strict": True,
    "module": "nodenext",
    "moduleResolution": "nodenext",
    "target": "es2022",
    "types": ["node"],
    "outDir": "built",
}


@pytest.fixture
def document(world: World, tmp_path: Path) -> Path:
    file = tmp_path / "openapi.json"
    file.write_text(world.gateway.http.get("/openapi.json").text)
    return file


def generate(*argv: str | Path, folder: Path) -> None:
    tools = Path(str(argv[0])).parent  # ruff, which formats what is generated
    done = subprocess.run(
        argv,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=GENERATE_S,
        env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warning" not in said.lower(), said


def test_in_python(world: World, document: Path, full_url: str, tmp_path: Path) -> None:
    python = python_with(PYTHON)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    generate(
        python.parent / "openapi-python-client",
        "generate",
        "--path",
        document,
        "--config",
        config,
        "--output-path",
        "made",
        "--meta",
        "none",
        "--fail-on-warning",
        folder=tmp_path,
    )
    world.run(python, "generated.py", PYTHONPATH=str(tmp_path), FULL_URL=full_url)


@pytest.mark.usefixtures("document")
@pytest.mark.parametrize(
    ("packages", "command", "script"),
    [
        (HEY_API, ("openapi-ts", "--no-log-file", "--file", "hey-api.mjs"), "hey_api.ts"),
        (
            OPENAPI_FETCH,
            (
                "openapi-typescript",
                "openapi.json",
                "--default-non-nullable=false",
                "--output",
                "made.ts",
            ),
            "openapi_fetch.ts",
        ),
    ],
)
def test_in_typescript(
    world: World,
    full_url: str,
    tmp_path: Path,
    packages: tuple[str, ...],
    command: tuple[str, ...],
    script: str,
) -> None:
    source = script_for_node(SCRIPTS / script, tmp_path, *packages)
    (tmp_path / "hey-api.mjs").write_text(HEY_API_CONFIG)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS}))
    tools = tmp_path / "node_modules/.bin"
    generate(tools / command[0], *command[1:], folder=tmp_path)
    generate(tools / "tsc", folder=tmp_path)
    world.run("node", tmp_path / "built" / source.with_suffix(".js").name, FULL_URL=full_url)
