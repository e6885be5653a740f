"""What schemathesis must know beyond the OpenAPI document: how lines of JSON are written."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
