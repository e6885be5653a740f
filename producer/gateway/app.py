"""The gateway application: an HTTP interface over `producer.Client`, and a web page."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from crossmodal import tracing
from crossmodal.extras import DISTRIBUTION
from crossmodal.settings import Settings
from producer.gateway import problems
from producer.gateway.a1111 import errors as a1111_errors
from producer.gateway.a1111 import fields as a1111_fields
from producer.gateway.a1111 import jobs as a1111_jobs
from producer.gateway.a1111 import server as a1111_server
from producer.gateway.caller import owner_of
from producer.gateway.headers import SecurityHeaders
from producer.gateway.metrics import CountRequests
from producer.gateway.openai import batches as openai_batches
from producer.gateway.openai import chat, files, images, models
from producer.gateway.openai.errors import TAG, rendered
from producer.gateway.parameters import no_others
from producer.gateway.requests import REQUESTS, CancelRequest, UploadRequest
from producer.gateway.routes import batches, blobs, jobs, operations, streams, webhooks
from producer.gateway.services import Services
from producer.http.bodies import BodyLimits
from producer.http.lengths import OneLength
from producer.http.manners import Heads, Slashes
from producer.http.stopping import Stopping

PAGE = Path(__file__).parent / "page"
OPENAI = (openai_batches, images, chat, files, models)
A1111 = (a1111_jobs, a1111_server)
ROUTES = (*OPENAI, *A1111, jobs, streams, blobs, batches, webhooks, operations)
UNTRACED = ("/", "/docs", "/livez", "/readyz", "/metrics")
ABOUT = """Text-to-image and image-to-text as background jobs: submit, do not wait, and find the
picture or the caption in the object store. Errors are `application/problem+json` with a stable
`code`."""


def make_app(settings: Settings, *, needs_keys: bool, flower_url: str = "") -> FastAPI:
    """Build the application. It connects at startup, in its lifespan."""
    services = Services(settings, needs_keys=needs_keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        yield
        await services.close()
        await asyncio.to_thread(tracing.flush)  # uvicorn ends the process after the lifespan

    app = FastAPI(
        redirect_slashes=False,  # `Slashes` redirects, with relative URLs
        title="crossmodal",
        version=version(DISTRIBUTION),
        description=ABOUT,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,  # FastAPI's pages load scripts from a CDN
        telemetry={
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": _is_not_traced,
        },
    )
    app.state.services = services
    problems.install(app, {TAG: rendered, a1111_errors.TAG: a1111_errors.rendered})
    for routes in ROUTES:
        app.include_router(routes.router, dependencies=[Depends(no_others)])
    app.include_router(operations.probes)
    _serve_page(app, flower_url)
    _serve_docs(app)
    _complete_schema(app)
    app.router.default = Slashes(app)
    _add_middleware(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Add the middleware, innermost first."""
    app.add_middleware(
        BodyLimits, settings=settings, owner_of=owner_of, of_files=("/v1/batches", "/v1/files")
    )
    app.add_middleware(Heads)
    app.add_middleware(CountRequests)
    app.add_middleware(SecurityHeaders)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        )
    app.add_middleware(OneLength)  # covers CORS preflights, too
    app.add_middleware(Stopping)


def _operation_id(route: APIRoute) -> str:
    """Return the name of an operation in generated clients, such as `jobs_submit`."""
    where = route.tags[0] if route.tags else "gateway"
    bare = "" if route.path_format.startswith("/v1/") or where != TAG else "_without_v1"
    name = route.name.removesuffix(f"_{where}")  # `list_jobs`: `jobs_list`
    return f"{where}_{name}{bare}".replace("-", "_")


def _is_not_traced(scope: Mapping[str, Any]) -> bool:
    """Return whether a request gets no span: probes, metrics, assets, streams of hours."""
    path = str(scope["path"])
    return path in UNTRACED or path.startswith(("/page/", "/docs/")) or path.endswith("/events")


def _serve_page(app: FastAPI, flower_url: str) -> None:
    text = (PAGE / "index.html").read_text().replace("{{flower}}", escape(flower_url))
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(text)


def _serve_docs(app: FastAPI) -> None:
    """Serve Swagger UI, with its assets from the package `fastapi_offline`."""
    text = (PAGE / "docs.html").read_text()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(text)

    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))


def _summarize(document: dict[str, Any]) -> None:
    """Set each summary to the first line of the description, not the function's name."""
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["summary"] = (
                operation["description"].splitlines()[0].rstrip(".").replace("`", "")
            )


def _forget_usual_refusals(document: dict[str, Any]) -> None:
    """Remove 422 from the OpenAI routes, which answer all invalid fields with 400."""
    for methods in document["paths"].values():
        for operation in methods.values():
            if TAG in operation["tags"]:
                operation["responses"].pop("422", None)


def _speak_3_1(document: dict[str, Any]) -> None:
    """Describe streams by `schema` instead of `itemSchema`, a keyword of OpenAPI 3.2."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    if "itemSchema" in content:
                        content["schema"] = content.pop("itemSchema")


def _complete_schema(app: FastAPI) -> None:
    """Add the schemas of bodies that routes parse themselves, and of errors, to OpenAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _summarize(document)
            _forget_usual_refusals(document)
            _speak_3_1(document)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            closed: list[type[BaseModel]] = [
                problems.Problem,
                *REQUESTS.values(),
                UploadRequest,
                CancelRequest,
                images.ImagesRequest,
                chat.ChatRequest,
                openai_batches.BatchRequest,
                a1111_fields.A1111Request,
                a1111_fields.A1111Options,
                a1111_jobs.InterrogateRequest,
            ]
            for model in closed:
                own = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(own.pop("$defs", {}))
                schemas[model.__name__] = own
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
