"""The params of a job: those of one request, or of the items of a bulk message."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from crossmodal.jobs.names import check_batch_id
from crossmodal.jobs.origin import Webhook
from crossmodal.kinds.base import ItemParams, StrictParams, build
from crossmodal.kinds.fields import MAX_SEED, BlobRef, ModelName
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.registry import kind_named, kind_of
from crossmodal.kinds.task import Task

MAX_ITEMS = 1_024  # per message


class BulkParams(StrictParams):
    """The params of message `number` of a `batch`, whose `items` are packed in the blob `input`.

    All items are for the same `model`, or for the default one. `most` is the max items per message,
    fixed for the batch so that a rerun packs the same messages.
    """

    kind: Annotated[str, AfterValidator(lambda name: kind_named(name).name)]
    input: BlobRef
    items: int = Field(ge=1, le=MAX_ITEMS)
    batch: Annotated[str, AfterValidator(check_batch_id)]
    number: int = Field(ge=0, lt=2**31)
    most: int = Field(default=MAX_ITEMS, ge=1, le=MAX_ITEMS)
    model: ModelName = None
    metadata: None = None


Params = ItemParams | BulkParams


def parse_params(task: Task, raw: Mapping[str, Any]) -> Params:
    """Validate the params of a job. Raises `InvalidParams`, naming every bad field."""
    if task.is_bulk:
        return build(BulkParams, {"kind": task.kind.name, **raw})
    return task.kind.build(raw)


def task_of(params: Params) -> Task:
    """Return the Celery task of the params."""
    if isinstance(params, BulkParams):
        return Task(params.kind).in_bulk
    return Task(kind_of(params).name)


def queue_of(params: Params) -> Queue:
    """Return the queue of the task and model of the params."""
    return Queue(task_of(params), params.model)


def fix_seed(params: Params) -> Params:
    """Return the params with a random seed if they have none, so that attempts draw the same."""
    if isinstance(params, ItemParams) and getattr(params, "seed", 0) is None:
        return params.model_copy(update={"seed": secrets.randbelow(MAX_SEED + 1)})
    return params


def recorded(params: Params) -> dict[str, Any]:
    """Return the params to record: all of the kind's own, and the given ones of the model.

    Params of the model that were not given take the model's defaults when the job runs.
    """
    found = params.model_dump(mode="json")
    if isinstance(params, BulkParams):
        return found
    own = kind_of(params).params.model_fields.keys() | params.model_fields_set
    return {name: value for name, value in found.items() if name in own}


def _asked(params: Params) -> dict[str, Any]:
    """Return the recorded params with the kind's defaults, not the model's, where not given."""
    if isinstance(params, BulkParams):
        return recorded(params)
    own = kind_of(params).params.model_fields
    unset = own.keys() - params.model_fields_set
    return recorded(params) | {name: own[name].get_default() for name in unset}


def fingerprint(
    task: Task,
    params: Params,
    expires_in_s: float | None = None,
    webhook: Webhook | None = None,
    **options: Any,
) -> str:
    """Return a SHA-256 that is equal for equal requests, regardless of a seed fixed for them.

    Unset `options` don't change it, so that digests from before an option existed stay valid.
    """
    told = None if webhook is None else [webhook.url, *sorted(webhook.events)]
    given = {name: value for name, value in options.items() if value}
    asked = [task, _asked(params), expires_in_s, told, *([given] if given else [])]
    canonical = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
