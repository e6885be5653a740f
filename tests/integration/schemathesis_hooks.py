"""What schemathesis must know beyond the OpenAPI document: how lines of JSON are written."""

from typing import Any

import httpx2
import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@schemathesis.hook
def after_call(_: Any, case: Any, response: Any) -> None:
    """Resume what was paused: whoever waits for jobs meanwhile would wait in vain."""
    if case.path.endswith("/pause") and response.status_code == 200:
        httpx2.post(response.request.url.removesuffix("/pause") + "/resume").raise_for_status()
