"""Check of query parameters: a route accepts those of its OpenAPI entry only."""

from fastapi import Request

from crossmodal.unknown import check_fields
from producer.gateway.caller import Caller


async def no_others(request: Request, key: Caller) -> None:
    """Raise `InvalidParams` for unknown query parameters, after authentication."""
    if request.query_params:
        check_fields(request.query_params, _known(request), "query")


def _known(request: Request) -> list[str]:
    path, method = request.scope["route"].path_format, request.method.lower()
    declared = request.app.openapi()["paths"][path][method].get("parameters", ())
    return [parameter["name"] for parameter in declared if parameter["in"] == "query"]
