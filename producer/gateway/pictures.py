"""Pictures in the object store: storing those of requests, and reading those of jobs for
responses that contain them.
"""

import base64
from collections.abc import Iterable
from functools import partial

from crossmodal.errors import BlobNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.record import ImageRef, PreviewRef
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.registry import kind_named
from crossmodal.net import check_public, fetch
from producer.batches.items import ANY_BLOB
from producer.gateway.ownership import size_of
from producer.gateway.requests import ByData, ByKey, ByUrl, JobRequest
from producer.gateway.services import Services

SQUARE = (  # a white PNG, so that documented examples work
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mP8zwABTAwUMQBJ"
    "QQEPkWFcdwAAAABJRU5ErkJggg=="
)


async def params_of(
    wanted: JobRequest,
    key: ApiKey,
    services: Services,
    beside: Iterable[str] = JobRequest.model_fields,
) -> ItemParams:
    """Return a job's checked params, its picture stored. Raises what is wrong with either.

    `beside` names the request's other fields, which an unknown field may have meant.
    """
    kind = kind_named(wanted.task)
    fields = wanted.model_dump(
        exclude=set(JobRequest.model_fields) - {"metadata"}, exclude_unset=True
    )
    field = kind.picture
    checked = partial(services.calls.checked, where="body", beside=beside)
    if field is None:
        return await services.ask(checked(kind, fields))
    image = getattr(wanted, field)
    params = await services.ask(checked(kind, fields | {field: ANY_BLOB}))
    stored = await _stored(image, field, key, services)
    return params.model_copy(update={field: stored})


async def _stored(
    image: ByKey | ByData | ByUrl, field: str, key: ApiKey, services: Services
) -> BlobRef:
    if isinstance(image, ByData):
        return await services.call_store(services.sync.upload, image.data, owner=key.id)
    if isinstance(image, ByKey):
        await services.call_store(size_of, image.key, key.id, services.sync)
        return BlobRef(key=image.key)
    settings = services.settings
    services.check_image_urls()
    check_public(image.url, settings.allow_private_urls, f"{field}.url")
    data = await fetch(
        image.url,
        max_bytes=settings.max_image_bytes,
        timeout_s=settings.fetch_timeout_s,
        allow_private=settings.allow_private_urls,
    )
    return await services.call_store(services.sync.upload, data, owner=key.id)


async def base64_of(image: ImageRef, services: Services) -> str:
    """Return a job's picture in base64."""
    data = await services.call_store(services.sync.read, image)
    return base64.b64encode(data).decode()


async def preview_of(preview: PreviewRef | None, services: Services) -> bytes | None:
    """Return the bytes of a preview, or None if there is none."""
    try:
        if preview is not None:
            return await services.call_store(services.sync.storage.get, BlobRef(key=preview.key))
    except BlobNotFound:  # deleted at the job's end
        pass
    return None
