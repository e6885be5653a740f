"""Parameters of a URL: those that the OpenAPI document has for the route, and no others."""

from fastapi import Request

from crossmodal.unknown import check_fields
from producer.gateway.caller import Caller


async def no_others(request: Request, key: Caller) -> None:
    """Raise `InvalidParams` for those that are not known, once it is known who calls."""
    if request.query_params:
        check_fields(request.query_params, _known(request), "query")


def _known(request: Request) -> list[str]:
    path, method = request.scope["route"].path_format, request.method.lower()
    declared = request.app.openapi()["paths"][path][method].get("parameters", ())
    return [parameter["name"] for parameter in declared if parameter["in"] == "query"]
