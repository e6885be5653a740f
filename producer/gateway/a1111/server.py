"""The rest of `/sdapi/v1/`: the web UI's state of a server, which each API key has for itself.

A key's settings are its model; its progress is that of the jobs it waits for.
"""

import base64
import time
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from crossmodal.errors import JobNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.record import JobState
from crossmodal.kinds.txt2img import TXT2IMG
from producer.gateway.a1111.errors import TAG, documented
from producer.gateway.a1111.fields import A1111Options
from producer.gateway.body import json_of, taking
from producer.gateway.caller import Caller, UrlsOf, basic
from producer.gateway.openai.models import MODELS_S
from producer.gateway.pictures import preview_of
from producer.gateway.services import Services, ServicesOf
from producer.gateway.waiting import view

router = APIRouter(prefix="/sdapi/v1", tags=[TAG], dependencies=[Depends(basic)])
NONE: dict[str, Any] = {
    "samplers": [{"name": "Automatic", "aliases": [], "options": {}}],
    "schedulers": [
        {
            "name": "automatic",
            "label": "Automatic",
            "aliases": None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
    ],
    "upscalers": [
        {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1.0}
    ],
    "scripts": {"txt2img": [], "img2img": []},
    "embeddings": {"loaded": {}, "skipped": {}},
} | {
    name: []
    for name in (
        "latent-upscale-modes",
        "sd-vae",
        "loras",
        "hypernetworks",
        "face-restorers",
        "prompt-styles",
        "extensions",
        "script-info",
    )
}


class State(BaseModel):
    """The running job, or the first that waits."""

    job: str = Field(default="", description="Its id.")
    job_count: int = Field(default=0, description="How many jobs the caller waits for.")
    job_no: int = 0
    job_timestamp: str = "0"
    sampling_step: int = 0
    sampling_steps: int = Field(default=0, description="0 if the model reports no steps.")


class A1111Progress(BaseModel):
    """A job's progress, from 0 to 1, and the estimated seconds to its end, or to its start."""

    progress: float = 0.0
    eta_relative: float = 0.0
    state: State = State()
    current_image: str | None = Field(
        default=None, description="In base64, from the second call on, if the model makes previews."
    )
    textinfo: str | None = Field(default=None, description="What it waits for besides its turn.")


@router.get("/options", response_model=A1111Options, responses=documented())
async def options(key: Caller, services: ServicesOf) -> A1111Options:
    """Return the caller's settings."""
    model = await services.ask(services.callers.model(key.id))
    if default := None if model else (await services.client.models()).default(TXT2IMG):
        model = default.name
    return A1111Options(
        sd_model_checkpoint=model,
        samples_format="png",
        sd_vae="Automatic",
        CLIP_stop_at_last_layers=1,
    )


@router.post(
    "/options",
    response_model=None,
    responses=documented(404, 413, 415),
    openapi_extra=taking(A1111Options, {"sd_model_checkpoint": "scenes"}),
)
async def set_options(
    key: Caller, services: ServicesOf, wanted: Annotated[A1111Options, json_of(A1111Options)]
) -> None:
    """Set the model that draws if the caller names none."""
    await choose(wanted, key, services)


async def choose(wanted: A1111Options, key: ApiKey, services: Services) -> None:
    """Store the model that draws for a caller, if given. Raises `ModelNotFound`."""
    if "sd_model_checkpoint" in wanted.model_fields_set:
        known, name = await services.client.models(max_age_s=MODELS_S), wanted.sd_model_checkpoint
        model = None if name is None else known.named(TXT2IMG, name).name
        await services.ask(services.callers.choose(key.id, model))


@router.post(
    "/refresh-checkpoints",
    name="refresh",
    response_model=list[dict[str, Any]],
    responses=documented(),
)
@router.get("/sd-models", response_model=list[dict[str, Any]], responses=documented())
async def models(key: Caller, services: ServicesOf) -> list[dict[str, Any]]:
    """List the models that draw; the `hash` is a model's version."""
    return [
        {
            "title": name,
            "model_name": name,
            "hash": model.version,
            "sha256": None,
            "filename": name,
            "config": None,
        }
        for name, model in (await services.client.models(max_age_s=MODELS_S)).items()
        if TXT2IMG.name in model.kinds
    ]


async def listed(request: Request, key: Caller) -> Any:
    """Return a fixed answer for what models decide here, as samplers, or do not support."""
    return NONE[request.url.path.rpartition("/")[2]]


for name in NONE:
    get = router.get(f"/{name}", name=name, response_model=None, responses=documented())
    get(listed)


@router.get("/progress", response_model=A1111Progress, responses=documented())
async def progress(
    key: Caller,
    services: ServicesOf,
    urls: UrlsOf,
    skip_current_image: Annotated[bool, Query(description="Have no preview made.")] = False,
) -> A1111Progress:
    """Return the progress and the preview of the caller's job."""
    jobs = await services.ask(services.callers.attended(key.id))
    if not jobs:
        return A1111Progress()
    job = next((job for job in jobs if job.state is JobState.RUNNING), jobs[0])
    at, step = time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created_at)), job.progress
    state = State(job=job.id, job_count=len(jobs), job_timestamp=at)
    if job.state is not JobState.RUNNING:
        waits = await view(job, services, urls)
        wait_s = waits.estimated_wait_s or 0.0
        return A1111Progress(state=state, eta_relative=wait_s, textinfo=waits.waits_for)
    if not skip_current_image:
        await services.ask(services.calls.ledger.watch([job.id]))
    if step is None:
        return A1111Progress(state=state)
    state.sampling_step, state.sampling_steps = step.step, step.of
    data = None if skip_current_image else await preview_of(step.preview, services)
    return A1111Progress(
        progress=step.step / step.of,
        eta_relative=step.left_s,
        state=state,
        current_image=base64.b64encode(data).decode() if data else None,
    )


@router.post("/interrupt", response_model=dict[str, str], responses=documented())
async def interrupt(key: Caller, services: ServicesOf) -> dict[str, str]:
    """Cancel the jobs that the caller waits for here; their answers have no pictures."""
    for job in await services.ask(services.callers.attended(key.id)):
        with suppress(JobNotFound):  # deleted meanwhile
            await services.client.cancel(job.id)
    return {}
