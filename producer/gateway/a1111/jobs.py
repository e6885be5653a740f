"""`/sdapi/v1/txt2img` and `interrogate`: pictures or a caption, in the response."""

import json
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from crossmodal.errors import BrokerUnavailable
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.record import Job
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.schema import properties_of
from crossmodal.kinds.txt2img import TXT2IMG
from producer.gateway import attached
from producer.gateway.a1111.errors import TAG, documented
from producer.gateway.a1111.fields import KNOWN, OURS, PARAMS, A1111Request, told_of, translated
from producer.gateway.a1111.server import choose
from producer.gateway.body import built, json_of, named_as, taking
from producer.gateway.caller import Caller, UrlsOf, basic, lasting, origin_of
from producer.gateway.openai.models import MODELS_S, schema_of
from producer.gateway.pictures import SQUARE, base64_of, params_of
from producer.gateway.requests import REQUESTS, Closed
from producer.gateway.services import Services, ServicesOf
from producer.handle import result_of

BUILT_IN = ("clip", "deepdanbooru")  # the web UI's own captioners
router = APIRouter(prefix="/sdapi/v1", tags=[TAG], dependencies=[Depends(basic), Depends(lasting)])


class A1111Response(BaseModel):
    """Pictures in base64; none if the job was interrupted."""

    images: list[str]
    parameters: dict[str, Any]
    info: str = Field(description="JSON: what was drawn, with seeds, texts, `warnings`, the `job`.")


class InterrogateRequest(Closed):
    """A picture to describe."""

    image: str = Field(
        description="Base64, a `data:` URL, or a URL if the gateway fetches pictures."
    )
    model: str = Field(
        default="clip",
        max_length=64,
        description="`clip` and `deepdanbooru` are the default captioner; else a model's name.",
    )


class InterrogateResponse(BaseModel):
    """A caption."""

    caption: str


@router.post(
    "/txt2img",
    response_model=A1111Response,
    responses=documented(404, 408, 413, 415, 500),
    openapi_extra=taking(A1111Request, {"prompt": "a red circle", "seed": 7, "batch_size": 2}),
)
async def txt2img(
    request: Request,
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    wanted: Annotated[A1111Request, json_of(A1111Request)],
) -> A1111Response:
    """Draw pictures and return them. The job is canceled if the caller disconnects."""
    settings = wanted.override_settings
    own = await services.ask(services.callers.model(key.id))
    known = await services.client.models(max_age_s=MODELS_S)
    name = settings.sd_model_checkpoint or own
    model = {} if name is None else {"model": known.named(TXT2IMG, name).name}
    schema = schema_of(model.get("model"), TXT2IMG, known)
    fields, warnings = translated(wanted, schema)
    with named_as(OURS, wanted.model_extra or ()):
        checked = services.calls.checked(TXT2IMG, model | fields, "body", KNOWN)
        params = await services.ask(checked)
    if not wanted.override_settings_restore_afterwards:
        await choose(settings, key, services)
    job = await _ended(params, key, services, urls, request)
    told = told_of(job, properties_of(schema), warnings)
    images = job.result.images if job.result and wanted.send_images else ()
    return A1111Response(
        images=[await base64_of(image, services) for image in images],
        parameters={name: told[name] for name in ("prompt", "seed", "batch_size", *PARAMS)},
        info=json.dumps(told),
    )


@router.post(
    "/interrogate",
    response_model=InterrogateResponse,
    responses=documented(404, 408, 410, 413, 415, 500),
    openapi_extra=taking(InterrogateRequest, {"image": SQUARE}),
)
async def interrogate(
    request: Request,
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    wanted: Annotated[InterrogateRequest, json_of(InterrogateRequest)],
) -> InterrogateResponse:
    """Describe a picture. The job is canceled if the caller disconnects."""
    params = await _interrogated(wanted, key, services)
    wanted.image = ""  # frees memory: it is in the store
    job = await _ended(params, key, services, urls, request)
    return InterrogateResponse(caption=result_of(job).captions[0].text)


async def _interrogated(wanted: InterrogateRequest, key: ApiKey, services: Services) -> ItemParams:
    """Return the job's params, its picture stored. Raises what is wrong with either."""
    way = "url" if wanted.image.lower().startswith(("http://", "https://")) else "data"
    body: dict[str, Any] = {"task": IMG2TXT.name, "image": {way: wanted.image}}
    known = await services.client.models(max_age_s=MODELS_S)
    if wanted.model not in BUILT_IN or known.serves(IMG2TXT, wanted.model):
        body["model"] = known.named(IMG2TXT, wanted.model).name
    return await params_of(built(REQUESTS[IMG2TXT.name], body), key, services)


async def _ended(
    params: ItemParams, key: ApiKey, services: Services, urls: UrlsOf, request: Request
) -> Job:
    """Submit a job and return it at its end; until then, its caller may poll and stop it."""
    origin = origin_of(key, urls, None, ())
    job_id = await attached.submit(params, origin, services, request)
    with suppress(BrokerUnavailable):  # the job runs all the same
        await services.ask(services.callers.attend(key.id, job_id))
    try:
        return await attached.ended(job_id, services, request)
    finally:
        with suppress(BrokerUnavailable):
            await services.ask(services.callers.leave(key.id, job_id))
