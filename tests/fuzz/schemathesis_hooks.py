"""What schemathesis must know beyond the OpenAPI document: the callers, and who owns what."""

import atexit
import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

from tests.fuzz.surfaces import count, surface_of
from tests.fuzz.tenants import Asked, Turns, leaks, read, take_note

turns = Turns(read())
counts = Counter[str]()
atexit.register(lambda: count(counts, Path(os.environ["FUZZ_COUNTS"])))


@schemathesis.serializer("application/jsonl")
def lines(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Let each key call in its turn, with names of its own, of the other, or made-up ones."""
    tenant = turns.next()
    case.headers = {**(case.headers or {}), **tenant.headers}
    for parameter in case.path_parameters or {}:
        if (name := turns.name(parameter, tenant)) is not None:
            case.path_parameters[parameter] = name
    counts[surface_of(case.path)] += 1


@schemathesis.check
def no_leak(_: Any, response: Any, case: Any) -> None:
    """Check that neither key sees the other's data."""
    sent = response.request
    tenant = next(t for t in turns.tenants if t.token in sent.headers.get("Authorization", ""))
    body = sent.body if isinstance(sent.body, str) else (sent.body or b"").decode(errors="replace")
    headers = {name: values[0] for name, values in response.headers.items()}
    said = "\n".join([sent.url, *map(str, sent.headers.values()), body])
    asked = Asked(said, response.status_code, headers, response.content)
    take_note(asked, tenant)
    found = leaks(asked, turns.other(tenant))
    assert not found, f"{case.method} {case.path} tells of another key's {found}"
