"""`/v1/models/NAME`; and the models that stand for OpenAI's own names, which clients use.

The list of models is in `routes/operations.py`: it is the same for all clients.
"""

import re

from fastapi import APIRouter

from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.record import ModelInfo
from crossmodal.kinds.base import Kind
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.registry import kinds
from crossmodal.kinds.schema import Schema
from crossmodal.kinds.txt2img import TXT2IMG
from producer.gateway.caller import Caller
from producer.gateway.openai.errors import TAG, documented
from producer.gateway.responses import ModelView, model_view
from producer.gateway.services import ServicesOf

MODELS_S = 1.0  # max age of the cached models
router = APIRouter(tags=[TAG])
_BUILT_IN = re.compile(r"(?:chat)?gpt-.*|dall-e-\d|o\d.*", re.DOTALL)
_DRAWS = re.compile(r"(?:chat)?gpt-image|dall-e")


@router.get("/v1/models/{name}", response_model=ModelView, responses=documented())
async def model(name: str, key: Caller, services: ServicesOf) -> ModelView:
    """Return one model, by its name or an alias, with all the words that it knows."""
    known = await services.client.models()
    meant = _default_for(name, known)
    return model_view(known, await services.client.model(meant.name if meant else name))


def _default_for(name: str, known: KnownModels) -> ModelInfo | None:
    """Return the default model for a name of OpenAI's, unless a model here has that name."""
    taken = any(known.serves(kind, name) for kind in kinds().values())
    if taken or not _BUILT_IN.fullmatch(name):
        return None
    return known.default(TXT2IMG if _DRAWS.match(name) else IMG2TXT)


def model_named(name: str | None, kind: Kind, known: KnownModels) -> str | None:
    """Resolve a model's name or alias; OpenAI's own names give None, the default model.

    A model or an alias of that name comes first. Raises `ModelNotFound`.
    """
    if name is None:
        return None
    if _BUILT_IN.fullmatch(name) and not known.serves(kind, name):
        return None
    return known.named(kind, name).name


def schema_of(name: str | None, kind: Kind, known: KnownModels) -> Schema | None:
    """Return the schema of the params of a model, or of the default one; None if unknown."""
    model = known.of(kind, {"model": name})
    return None if model is None else model.kinds[kind.name].params
