"""The MCP server over HTTP with keys: each answer is JSON-RPC, and leaks no other key's data."""

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from crossmodal.local.stack import Stack
from crossmodal.local.valkey import free_port
from crossmodal.processes import python_module
from tests.fuzz.conftest import Fuzzed
from tests.fuzz.made_up import TEXTS, value
from tests.fuzz.tenants import Asked, Tenant, Turns, leaks
from tests.waiting import until

CASES = 10  # times `Fuzzed.each`
INTERNAL = -32_603  # JSON-RPC's code for an internal error
METHODS = (
    "ping",
    "tools/list",
    "resources/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "initialize",
    "notifications/cancelled",
)
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "fuzz", "version": "1"},
}


@pytest.fixture(scope="module")
def mcp_url(fuzzed: Fuzzed) -> Iterator[str]:
    port = free_port()
    argv = python_module("crossmodal.cli", "mcp", "--http", "--keys", "--port", str(port))
    log = fuzzed.folder / "mcp.log"
    with log.open("wb") as output, Stack(fuzzed.stack_env, output) as stack:
        child = stack.start("mcp", argv, 20)
        url = f"http://127.0.0.1:{port}/mcp"
        until(lambda: _listens(url) or not child.is_alive, 60)
        yield url
        assert child.is_alive, log.read_text()[-3_000:]
    assert "Traceback" not in log.read_text()


def test_every_answer_is_of_the_protocol_and_none_anothers(fuzzed: Fuzzed, mcp_url: str) -> None:
    rng, turns, cases = random.Random(7), Turns(fuzzed.tenants), CASES * fuzzed.each
    with httpx2.Client(timeout=60) as http:
        sessions = {tenant.token: _greet(http, mcp_url, tenant) for tenant in turns.tenants}
        tools = {
            tenant.token: _tools(http, mcp_url, sessions[tenant.token]) for tenant in turns.tenants
        }
        for number in range(cases):
            tenant = turns.next()
            headers = dict(sessions[tenant.token])
            call = _call(rng, turns, tenant, tools[tenant.token], number)
            if "mcp-session-id" in headers and rng.random() < 0.05:
                stolen = sessions[turns.other(tenant).token]["mcp-session-id"]
                headers["mcp-session-id"] = stolen
            sent = json.dumps(call)
            answer = http.post(mcp_url, content=sent, headers=headers)
            asked = Asked(sent, answer.status_code, dict(answer.headers), answer.content)
            assert answer.status_code < 500, (sent, answer.text)
            problem = _problem(answer, call)
            assert problem is None, (problem, sent, answer.text)
            refused = Asked(
                sent, 400 if _is_error(answer) else answer.status_code, asked.headers, asked.body
            )
            assert not leaks(refused, turns.other(tenant)), asked
    fuzzed.note("MCP", cases)


def _listens(url: str) -> bool:
    try:
        return httpx2.post(url).status_code == 401
    except httpx2.TransportError:
        return False


def _greet(http: httpx2.Client, url: str, tenant: Tenant) -> dict[str, str]:
    """Open a session; return its headers."""
    headers = {
        **tenant.headers,
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }
    answer = http.post(url, headers=headers, json=_request("initialize", HELLO, 0))
    answer.raise_for_status()
    session = answer.headers.get("mcp-session-id")
    return headers | ({"mcp-session-id": session} if session else {})


def _tools(http: httpx2.Client, url: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    answer = http.post(url, headers=headers, json=_request("tools/list", {}, 1)).raise_for_status()
    [message] = _messages(answer)
    tools: list[dict[str, Any]] = message["result"]["tools"]
    return tools


def _request(method: str, params: Any, number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _call(
    rng: random.Random, turns: Turns, tenant: Tenant, tools: list[dict[str, Any]], number: int
) -> dict[str, Any]:
    """Return a call, mostly of a tool, with some arguments that have a meaning."""
    names = [*TEXTS, *(one for t in turns.tenants for own in t.names.values() for one in own[:5])]
    if rng.random() < 0.2:
        return _request(rng.choice(METHODS), value(rng, names), number)
    tool = rng.choice(tools)
    given = {}
    for name in tool["inputSchema"].get("properties", {}):
        if name in tool["inputSchema"].get("required", ()) or rng.random() < 0.3:
            given[name] = value(rng, names, 2)
    if "wait" in given:
        given["wait"] = rng.choice([False, 0, 1])
    if rng.random() < 0.1:
        given[rng.choice(TEXTS)] = value(rng, names)
    return _request("tools/call", {"name": tool["name"], "arguments": given}, number)


def _messages(answer: httpx2.Response) -> list[dict[str, Any]]:
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        lines = answer.text.splitlines()
        told = [
            json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip()
        ]
        return [message for message in told if "method" not in message]
    return [answer.json()]


def _problem(answer: httpx2.Response, call: dict[str, Any]) -> str | None:
    """Return what is wrong with an answer as one of JSON-RPC, or None."""
    if answer.status_code == 202:
        return None if call["method"].startswith("notifications/") else "no answer"
    if answer.status_code != 200:
        return None
    [message] = _messages(answer)
    if ("result" in message) == ("error" in message):
        return "neither result nor error, or both"
    if message.get("error", {}).get("code") == INTERNAL:
        return "an internal error"
    return None if message.get("id") == call["id"] else "another id"


def _is_error(answer: httpx2.Response) -> bool:
    if answer.status_code != 200:
        return True
    [message] = _messages(answer)
    return "error" in message or bool(message["result"].get("isError"))
