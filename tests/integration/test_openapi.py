"""The OpenAPI document against the gateway that it describes, in thousands of made-up cases."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance"
)
# Cases that are made up for an operation, beside those of the other phases; `make fuzz` has more.
EACH = int(os.environ.get("FUZZ_EXAMPLES", "10"))
LEAST = 15 * EACH  # cases in all


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(stack.env, tmp_path_factory.mktemp("openapi")) as gateway:
        yield gateway


def test_no_answer_is_undocumented_and_none_is_a_fault_of_ours(gateway: Gateway) -> None:
    # One worker: CPython 3.11 counts the depth of all threads' parsers together. Of two that parse
    # at once, as Hypothesis does to describe a lambda, one fails: "recursion depth mismatch".
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json",
        "--checks", CHECKS, "--exclude-path", "/v1/events",
        "--exclude-path-regex", "/images/(edits|variations)",  # which nothing here does: 501
        "--max-examples", str(EACH),
        "--phases", "examples,coverage,fuzzing,stateful", "--workers", "1", "--no-color",
    ]  # fmt: skip
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1_200)
    assert ended.returncode == 0, ended.stdout[-20_000:]
    found = re.search(r"(\d+) generated", ended.stdout)
    assert found, ended.stdout[-2_000:]
    assert int(found.group(1)) >= LEAST, ended.stdout[-2_000:]
    print(f"{found.group(1)} cases")


def test_every_operation_says_what_it_does_and_how_it_fails(gateway: Gateway) -> None:
    document = gateway.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation.get("description") or operation.get("summary"), where
            if path not in ("/livez", "/readyz"):
                wrong = "400" if operation["tags"] == ["openai"] else "422"
                assert {"401", "403", wrong, "429", "503"} <= set(operation["responses"]), where
            for status, response in operation["responses"].items():
                if int(status) >= 400 and operation["tags"] == ["openai"]:
                    assert response["content"]["application/json"]["example"]["error"], where
                elif int(status) >= 400 and operation["tags"] == ["a1111"]:
                    assert response["content"]["application/json"]["example"]["detail"], where
                elif int(status) >= 400:
                    assert "application/problem+json" in response["content"], where
                    example = response["content"]["application/problem+json"]["example"]
                    assert str(example["status"]) == status, where
